"""Show what the layer attention of a trained model does on some images.

Writes a report that opens in any browser, its figures as PNG files, and the recorded numbers.
Images that cannot be used are passed over with a message.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import mmdla  # noqa: F401 - registers the models
from mmdla.analysis.inspection.activation import find_layers
from mmdla.analysis.inspection.model_under_test import ModelUnderTest, find_images
from mmdla.analysis.inspection.page import Page, look_at, make_page
from mmdla.apis.inputs import SUFFIXES, UnreadableError
from mmdla.cli.command_line import add_cfg_options, parse
from mmdla.engine.config import check_checkpoint, load_config
from mmdla.errors import InputError


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector or classifier')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'images',
        nargs='+',
        metavar='IMAGE',
        help=f'files or folders; read from folders: {SUFFIXES}',
    )
    parser.add_argument('--out', type=Path, required=True, metavar='DIR', help='where results go')
    parser.add_argument(
        '--layer',
        nargs='+',
        metavar='NAME',
        help='layers whose activity is laid over the images, e.g. backbone.layer2 (default: the '
        "classifier's last stage, all stages that the detector uses)",
    )
    parser.add_argument(
        '--backbone', metavar='NAME', help='which of several backbones, e.g. student.backbone'
    )
    parser.add_argument('--score', type=float, default=0.3, help='of detections that are kept')
    add_cfg_options(parser)
    parser.set_defaults(launcher='none', work_dir=None)
    args = parse(parser, argv)
    if not 0 <= args.score <= 1:
        parser.error(f'argument --score: must be in 0..1, got {args.score}')
    return args


def write(page: Page, folder: Path) -> None:
    """Write the files; each appears when it is complete, the report last."""
    files = {f'figures/{name}': content for name, content in page.figures.items()}
    files['recorded.json'] = json.dumps(page.numbers, indent=1).encode()
    files['report.html'] = page.report.html().encode()
    (folder / 'figures').mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        part = folder / f'{name}.part'
        part.write_bytes(content)
        os.replace(part, folder / name)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = load_config(args)
    check_checkpoint('checkpoint', args.checkpoint)
    images = find_images(args.images)
    if args.out.exists() and not args.out.is_dir():
        raise InputError(f'--out {args.out}: this is a file, not a folder')
    subject = ModelUnderTest(cfg, args.checkpoint, args.score, args.backbone)
    layers = args.layer or subject.default_layers
    find_layers(subject.model, layers)
    looks, failed = [], []
    for path in images:
        try:
            looks.append(look_at(subject, path, layers))
        except UnreadableError as error:
            failed.append(f'{path}: {error}')
            print(f'passed over: {failed[-1]}', file=sys.stderr)
    if not looks:
        raise InputError(f'none of the {len(images)} images could be used')
    facts = dict(config=args.config, checkpoint=args.checkpoint)
    if failed:
        facts['passed over'] = '; '.join(failed)
    write(make_page(subject, looks, facts), args.out)
    print(f'{args.out / "report.html"}, {args.out / "recorded.json"}, {args.out / "figures"}')
