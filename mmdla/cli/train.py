"""Train a detector or a classifier. The options are those of the host libraries' train tools."""

import argparse
import sys
from collections.abc import Callable, Sequence

from mmengine.config import Config
from mmengine.device import get_device

from mmdla.checkpoint.restricted import restricted_loading
from mmdla.cli.command_line import add_common_options, is_first_on_machine, parse
from mmdla.config_types import type_name
from mmdla.datasets.check_data import check_annotations
from mmdla.datasets.classes import check_classes
from mmdla.datasets.data import check_data
from mmdla.datasets.data_errors import explain_data_errors
from mmdla.engine.config import (
    build_runner,
    check_checkpoint,
    check_work_dir,
    load_config,
    set_classification_defaults,
)
from mmdla.engine.options import (
    resume_from,
    use_atomic_checkpoints,
    use_exact_resume,
    use_finite_loss,
    use_validation_check,
)
from mmdla.errors import InputError
from mmdla.files import explain_full_disk

LOADERS = ('train_dataloader', 'val_dataloader')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector or a classifier.')
    parser.add_argument('config', help='config file, e.g. configs/faster_rcnn_dla_r50.py')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a value from the newest valid one in the '
        'work folder, or from the beginning if there is none',
    )
    parser.add_argument(
        '--exact-resume',
        action='store_true',
        help='let a run that is interrupted and resumed end in the same weights, bit for bit, as '
        'one that is not: deterministic algorithms, random numbers seeded in every epoch, from '
        'randomness.seed or 0; to be given to every start of the run (docs/resume.md)',
    )
    parser.add_argument(
        '--no-val-check',
        action='store_true',
        help='do not try the validation with one batch before training',
    )
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the batch size, from auto_scale_lr.base_batch_size',
    )
    add_common_options(parser)
    return parse(parser, argv)


def use_amp(cfg: Config) -> None:
    """Switch ``optim_wrapper`` to mixed precision."""
    if get_device() == 'cpu':
        raise InputError('--amp needs a GPU, none is found here')
    kind = type_name(cfg.optim_wrapper.get('type', 'OptimWrapper'))
    if kind not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise InputError(f"--amp needs an optim_wrapper of type 'OptimWrapper', got {kind!r}")
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')


def use_auto_scale_lr(cfg: Config) -> None:
    """Switch the scaling of the learning rate on."""
    if not (cfg.get('auto_scale_lr') or {}).get('base_batch_size'):
        raise InputError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
    cfg.auto_scale_lr.enable = True


def tell(sentence: str) -> None:
    print(f'--resume: {sentence}', file=sys.stderr, flush=True)


def training_config(args: argparse.Namespace, tell: Callable[[str], object]) -> Config:
    """Read the config and apply the options to it; it is changed nowhere else.

    The checkpoint hook comes before what asks it for names and intervals: exact resume, resume.

    Args:
        args (argparse.Namespace): Of the command line.
        tell (Callable): Is told which checkpoints ``--resume`` passed over and why.

    Raises:
        InputError: An option cannot be had with this config, or a checkpoint is not there.
    """
    cfg = load_config(args)
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        use_auto_scale_lr(cfg)
    use_atomic_checkpoints(cfg)
    use_finite_loss(cfg)
    if not args.no_val_check:
        use_validation_check(cfg)
    if args.exact_resume:
        use_exact_resume(cfg)
    if args.resume is not None:
        resume_from(cfg, args.resume, tell)
    if cfg.get('load_from'):
        check_checkpoint('load_from', cfg.load_from)
    set_classification_defaults(cfg, LOADERS)
    return cfg


def check_inputs(cfg: Config, annotations: bool) -> None:
    """Refuse data and folders that the training would stop at; the slow check by one process only.

    Raises:
        InputError: Something is not there, cannot be written or contradicts the config.
    """
    check_classes(cfg, LOADERS)
    check_data(cfg, LOADERS)
    check_work_dir(cfg.work_dir)
    if annotations:
        check_annotations(cfg, LOADERS)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    first = is_first_on_machine(sys.argv[1:] if argv is None else argv)
    cfg = training_config(args, tell if first else lambda _: None)
    check_inputs(cfg, annotations=first)
    with explain_data_errors(cfg, LOADERS), explain_full_disk(cfg.work_dir), restricted_loading():
        build_runner(cfg).train()
