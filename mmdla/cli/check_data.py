"""Check the annotations and all images that a config trains and evaluates with.

tools/train.py does the same before it starts, but for as many images as five seconds allow.
"""

import argparse
from collections.abc import Sequence

import mmdla  # noqa: F401 - registers the models
from mmdla.cli.command_line import add_cfg_options, parse
from mmdla.datasets.check_data import check_annotations
from mmdla.datasets.classes import check_classes
from mmdla.datasets.data import check_data
from mmdla.engine.config import read_config
from mmdla.errors import InputError

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file, e.g. configs/faster_rcnn_dla_r50.py')
    add_cfg_options(parser)
    return parse(parser, argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    if cfg.get('default_scope') != 'mmdet':
        raise InputError(f'{args.config}: only data sets of detectors, in COCO format, are checked')
    check_classes(cfg, LOADERS)
    check_data(cfg, LOADERS)
    check_annotations(cfg, LOADERS, seconds=None)
