"""Turn a checkpoint of the DLA or MRLA authors into one of ours."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mmdla import __version__
from mmdla.checkpoint import CheckpointError, convert_checkpoint, read_state_dict
from mmdla.checkpoint.recognise import describe


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', help='released checkpoint: CIFAR, ImageNet or detection')
    parser.add_argument('target', type=Path, help='where the converted checkpoint goes')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if not args.target.parent.is_dir():
        raise CheckpointError(f'{args.target.parent}: no such folder')
    state = read_state_dict(args.source)
    if args.target.exists() and args.target.samefile(args.source):
        raise CheckpointError(f'{args.target} is the source: choose another name')
    try:
        release, state = convert_checkpoint(state)
    except CheckpointError as error:
        raise CheckpointError(f'{args.source}: {error}') from error
    part = args.target.with_name(f'{args.target.name}.part')
    try:
        meta = dict(mmdla=__version__, release=describe(release))
        torch.save(dict(meta=meta, state_dict=state), part)
        os.replace(part, args.target)
    except (OSError, RuntimeError) as error:  # torch.save raises the latter, e.g. on a full disk
        raise CheckpointError(f'{args.target} cannot be written: {error}') from error
    finally:
        part.unlink(missing_ok=True)
    print(f'{release}\nbackbone = {release.backbone_cfg()}\n{len(state)} tensors in {args.target}')
