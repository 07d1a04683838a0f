"""Export a backbone, a classifier or a detector's network to ONNX, or by torch.export."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import mmdla
from mmdla.apis.compare import TOLERANCE, Runner, differences, onnx_runner, program_runner
from mmdla.apis.export import (
    EXPORTERS,
    OPSETS,
    PARTS,
    Part,
    check_packages,
    complete,
    export_onnx,
    export_program,
)
from mmdla.apis.model import load_model
from mmdla.cli.command_line import add_cfg_options, parse
from mmdla.engine.config import check_checkpoint, read_config
from mmdla.errors import InputError
from mmdla.files import atomic_write


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file, e.g. configs/imagenet_dla_l_r50.py')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('out', type=Path, help='FILE.onnx, or FILE.pt2 for torch.export')
    parser.add_argument(
        '--part', choices=PARTS, help='export up to this part; default: as much as can be exported'
    )
    parser.add_argument(
        '--fold', action='store_true', help='fold the batch norms into the convolutions first'
    )
    parser.add_argument(
        '--exporter',
        choices=EXPORTERS,
        default=EXPORTERS[0],
        help='which of the two exporters of PyTorch; torchscript is for versions before 2.6',
    )
    parser.add_argument('--opset', type=int, choices=OPSETS, default=OPSETS[0])
    parser.add_argument(
        '--check',
        action='store_true',
        help='compare with PyTorch on images of two sizes, one and three at once',
    )
    parser.add_argument(
        '--images', '--pictures', nargs='+', type=Path, help="for --check; default: scikit-image's"
    )
    add_cfg_options(parser)
    return parse(parser, argv)


def images_for_check(given: Sequence[Path] | None) -> Sequence[Path]:
    if given:
        return given
    try:
        import skimage
    except ImportError:
        raise InputError('--check needs --images, or scikit-image and its images') from None
    folder = Path(skimage.__file__).parent / 'data'
    return [folder / f'{name}.png' for name in ('astronaut', 'chelsea', 'coffee')]


def check_out(out: Path) -> None:
    if out.suffix not in ('.onnx', '.pt2'):
        raise InputError(f'out must end with .onnx or .pt2, got {out}')
    if not out.parent.is_dir():
        raise InputError(f'{out.parent}: no such folder')


def check_opset(exporter: str, opset: int) -> None:
    if exporter == 'torchscript' and opset != OPSETS[0]:
        raise InputError(
            f'--opset {opset} needs --exporter dynamo, torchscript writes only {OPSETS[0]} rightly'
        )


def check_exporter(exporter: str, part: Part) -> None:
    classifies = part.part == 'model' and not hasattr(part.model, 'bbox_head')
    if exporter == 'torchscript' and classifies:
        raise InputError(
            '--exporter torchscript writes classifiers that onnxruntime does not load: '
            'use --exporter dynamo, or --part backbone'
        )


def check(runner: Runner, part: Part, images: Sequence[Path]) -> None:
    """Print how far the exported model is from PyTorch.

    Raises:
        InputError: It is too far.
    """
    found = []
    for difference in differences(runner, part, images):
        print(difference, flush=True)
        found.append(difference)
    if not all(difference.is_small for difference in found):
        raise InputError(f'the exported model differs from PyTorch by more than {TOLERANCE:g}')


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    check_out(args.out)
    check_opset(args.exporter, args.opset)
    is_onnx = args.out.suffix == '.onnx'
    if is_onnx:
        check_packages('onnx', *(['onnxruntime'] if args.check else []))
    images = images_for_check(args.images) if args.check else ()
    cfg = read_config(args.config, args.cfg_options)
    check_checkpoint('checkpoint', args.checkpoint)
    model = load_model(cfg, args.checkpoint)
    original = Part(model, args.part)
    part = Part(mmdla.fold_for_inference(model), args.part) if args.fold else original
    if is_onnx:
        check_exporter(args.exporter, part)

    with atomic_write(args.out) as file:
        if is_onnx:
            export_onnx(part, file, args.exporter, args.opset)
            complete(file, cfg, model)
        else:
            torch.export.save(export_program(part), file)
        if args.check:
            check(onnx_runner(file) if is_onnx else program_runner(file), original, images)
    print(f'{args.out}: {part.part} of {type(model).__name__}{", folded" * args.fold}')
