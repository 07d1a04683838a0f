"""Count the parameters and multiply-adds of a config's model, by part."""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

import mmdla  # noqa: F401 - registers the models
from mmdla.analysis.complexity import Complexity, Share, measure_shares
from mmdla.apis.model import task_of
from mmdla.cli.command_line import add_cfg_options, parse, positive
from mmdla.config_types import resolve_type, type_name
from mmdla.engine.config import read_config, register_host_modules
from mmdla.errors import InputError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, e.g. configs/faster_rcnn_dla_r50.py')
    parser.add_argument(
        '--shape', nargs=2, type=positive, metavar=('H', 'W'),
        help='height and width of the image; default: 32x32 (CIFAR), 224x224 (other '
        'classifiers), 800x1280 (detectors)',
    )  # fmt: skip
    add_cfg_options(parser)
    return parse(parser, argv)


def check_countable(cfg: Config) -> None:
    """Refuse detectors that are neither of one dense head nor of proposals and one box head.

    Raises:
        InputError: Names the type of the detector.
    """
    if task_of(cfg) != 'detection':
        return
    from mmdet.models import SingleStageDetector, StandardRoIHead, TwoStageDetector
    from mmdet.registry import MODELS

    kind = resolve_type(cfg.model.type, MODELS)
    head = resolve_type(cfg.model.roi_head.type, MODELS) if cfg.model.get('roi_head') else None
    if issubclass(kind, TwoStageDetector):
        countable = head is not None and issubclass(head, StandardRoIHead)
    else:
        countable = issubclass(kind, SingleStageDetector)
    if not countable:
        parts = type_name(cfg.model.type) + (f' with {head.__name__}' if head else '')
        raise InputError(f'{parts} cannot be counted, only SingleStageDetector, and '
                         'TwoStageDetector with StandardRoIHead')  # fmt: skip


def table(model: Complexity, parts: Sequence[Share], attention: Share) -> str:
    rows = [('part', 'parameters, M', '%', 'GMACs', '%')]
    shares = [*parts, Share('total', model.parameters, model.macs)]
    if attention.parameters:
        index = next(i for i, part in enumerate(parts) if part.name == 'backbone')
        name = f'  of it {attention.name}'
        shares.insert(index + 1, attention._replace(name=name))
    for share in shares:
        rows.append(
            (
                share.name,
                f'{share.parameters / 1e6:.3f}',
                f'{100 * share.parameters / model.parameters:.1f}',
                f'{share.macs / 1e9:.3f}',
                f'{100 * share.macs / model.macs:.1f}',
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    register_host_modules(cfg)
    check_countable(cfg)
    size = None if args.shape is None else tuple(args.shape)
    model, parts, attention = measure_shares(cfg, size)
    print(f'{args.config}, one image of {model.size[0]}x{model.size[1]} (height x width)\n')
    print(table(model, parts, attention))
