"""Evaluate a checkpoint. The options are those of the host libraries' test tools."""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.dist import get_rank
from mmengine.evaluator import DumpResults
from mmengine.hooks import LoggerHook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmdla.apis.pipeline import test_dataset
from mmdla.checkpoint import read_state_dict
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
    check_weights,
    check_work_dir,
    explain_mismatch,
    load_config,
    set_classification_defaults,
)
from mmdla.errors import InputError

LOADERS = ('test_dataloader',)
TTA_KEYS = ('scale_factor', 'flip', 'flip_direction')  # to merge what was found


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    parser.add_argument('config', help='config file, e.g. configs/faster_rcnn_dla_r50.py')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--out', metavar='FILE.pkl', help='also write the predictions to a file')
    parser.add_argument('--show', action='store_true', help='show the predictions in a window')
    parser.add_argument('--show-dir', help='draw the predictions into this folder of the work dir')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds that --show waits')
    parser.add_argument(
        '--tta', action='store_true', help='test-time augmentation by tta_model and tta_pipeline'
    )
    add_common_options(parser)
    return parse(parser, argv)


def draw_predictions(cfg: Config, args: argparse.Namespace) -> None:
    """Switch the visualization hook on, which has other arguments in each host library."""
    hook = (cfg.get('default_hooks') or {}).get('visualization')
    if hook is None:
        raise InputError('--show and --show-dir need default_hooks.visualization in the config')
    if cfg.get('default_scope') == 'mmpretrain':
        hook.update(enable=True, show=args.show, wait_time=args.wait_time, out_dir=args.show_dir)
    else:
        hook.update(draw=True, show=args.show, wait_time=args.wait_time, test_out_dir=args.show_dir)


def use_tta(cfg: Config) -> None:
    """Wrap the model for test-time augmentation, as the host libraries' tools do.

    Without ``tta_model`` and ``tta_pipeline`` in the config images are flipped.
    """
    dataset = test_dataset(cfg)
    model, pipeline = default_tta(cfg, dataset.get('pipeline') or [])
    for key, default in (('tta_model', model), ('tta_pipeline', pipeline)):
        if cfg.get(key) is None:
            print(f'--tta: the config has no {key}, images are flipped', file=sys.stderr)
            cfg[key] = default
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    dataset.pipeline = cfg.tta_pipeline


def default_tta(cfg: Config, steps: list[dict]) -> tuple[dict, list[dict]]:
    """Return model and pipeline of a test with each image as it is and flipped.

    Args:
        cfg (Config): A complete config.
        steps (list[dict]): The test pipeline, which ends with the step that packs the inputs.

    Raises:
        InputError: There is no such step.
    """
    if not steps or not type_name(steps[-1]['type']).startswith('Pack'):
        raise InputError('--tta needs a test pipeline that ends by packing the inputs')
    pack = dict(steps[-1])
    if cfg.get('default_scope') == 'mmpretrain':
        model = dict(type='mmpretrain.AverageClsScoreTTA')
    else:
        nms = dict(type='nms', iou_threshold=0.5)
        model = dict(type='DetTTAModel', tta_cfg=dict(nms=nms, max_per_img=100))
        known = pack.get('meta_keys') or ('img_id', 'img_path', 'ori_shape', 'img_shape')
        pack['meta_keys'] = (*dict.fromkeys((*known, *TTA_KEYS)),)
    flips = [dict(type='RandomFlip', prob=prob) for prob in (1.0, 0.0)]
    return model, [*steps[:-1], dict(type='TestTimeAug', transforms=[flips, [pack]])]


def dump_predictions(runner: Runner, scope: str | None, path: str) -> None:
    """Let the evaluator also write the predictions to ``path``."""
    if scope == 'mmdet':
        from mmdet.evaluation import DumpDetResults

        metric = DumpDetResults(out_file_path=path)  # masks as RLE
    else:
        metric = DumpResults(out_file_path=path)
    runner.test_evaluator.metrics.append(metric)


def write_metrics_once(runner: Runner) -> None:
    """Take MMEngine's logger from all processes but the first.

    It would write the metrics in every one of them, at the same time and to the same file.
    """
    if get_rank():
        runner.hooks[:] = [hook for hook in runner.hooks if not isinstance(hook, LoggerHook)]


def load_checkpoint(runner: Runner, load: Callable, path: str, **kwargs: Any) -> Any:
    """Load by ``runner.load_checkpoint``, but execute nothing in the file, and all of it must fit.

    MMEngine only logs what does not fit, and the metric of a partly random model misleads.
    """
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    check_weights(read_state_dict(path), model.state_dict(), path)
    with explain_mismatch(path), restricted_loading():
        return load(path, **{**kwargs, 'strict': True})


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise InputError(f'--out must end with .pkl or .pickle, got {args.out}')
    cfg = load_config(args)
    check_checkpoint('checkpoint', args.checkpoint)
    cfg.load_from = args.checkpoint
    cfg.resume = False
    if args.show or args.show_dir:
        draw_predictions(cfg, args)
    if args.tta:
        use_tta(cfg)
    set_classification_defaults(cfg, LOADERS)

    check_classes(cfg, LOADERS)
    check_data(cfg, LOADERS)
    check_work_dir(cfg.work_dir)
    if is_first_on_machine(sys.argv[1:] if argv is None else argv):
        check_annotations(cfg, LOADERS)
    with explain_data_errors(cfg, LOADERS):
        runner = build_runner(cfg)
        write_metrics_once(runner)
        runner.load_checkpoint = partial(load_checkpoint, runner, runner.load_checkpoint)
        if args.out:
            dump_predictions(runner, cfg.get('default_scope'), args.out)
        runner.test()
