"""Find a mistake in the validation before the first epoch of training, not after it."""

import contextlib
import copy
import io
import logging
import random
import time
import traceback
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner, ValLoop

from mmdla.errors import InputError, TrainingError


@HOOKS.register_module()
class ValidationCheckHook(Hook):
    """Run one batch of the validation, metric included, before training starts.

    A key that a transform or the metric misses, classes that do not fit, a file that cannot be
    written would otherwise end the run after its first epoch. The training stays the same bit for
    bit: random numbers, modes and buffers of the model, logs and metrics are as they were, no
    other hook is called, and files that the metric writes go nowhere.

    It takes the first images of the data set, and loops of MMEngine's ``ValLoop`` or a subclass of
    it. ``tools/train.py`` adds it; ``--no-val-check`` or ``default_hooks.val_check=None`` leaves it
    out.

    Raises:
        TrainingError: When training starts, if the validation fails; says where.

    Example:
        >>> custom_hooks = [dict(type='mmdla.engine.ValidationCheckHook')]
    """

    priority = 'VERY_HIGH'  # before the hooks that watch the model

    def before_train(self, runner: Runner) -> None:
        loop = runner.val_loop
        if not isinstance(loop, ValLoop) or not hasattr(loop.dataloader.dataset, '__getitem__'):
            return
        start = time.monotonic()
        with _unchanged(runner, loop):
            try:
                evaluator = _new_evaluator(runner, loop)
                evaluator.dataset_meta = loop.evaluator.dataset_meta
                loop.evaluator = evaluator
                runner.model.eval()
                loop.run_iter(0, _first_batch(loop.dataloader))
                evaluator.evaluate(len(loop.dataloader.dataset))
            except (InputError, torch.cuda.OutOfMemoryError):
                raise
            except Exception as error:
                raise TrainingError(_describe(error)) from error
        seconds = time.monotonic() - start
        runner.logger.info(f'Validation tried with one batch before training ({seconds:.1f} s)')


def _first_batch(loader: torch.utils.data.DataLoader) -> Any:
    """Return what the loader would give first, without starting its workers."""
    dataset, size = loader.dataset, loader.batch_size or 1
    length = max(len(dataset), 1)
    first = get_rank() % length  # with more processes than images samplers begin again
    indices = range(first, length, get_world_size())[:size]
    return loader.collate_fn([dataset[i] for i in indices])


def _new_evaluator(runner: Runner, loop: ValLoop) -> Evaluator:
    """Return metrics without a history, which write no files."""
    config = runner.cfg.get('val_evaluator')
    if config:
        evaluator = runner.build_evaluator(copy.deepcopy(config))
    else:
        evaluator = copy.deepcopy(loop.evaluator)
    evaluator.metrics[:] = [m for m in evaluator.metrics if not isinstance(m, DumpResults)]
    for metric in evaluator.metrics:
        if getattr(metric, 'outfile_prefix', None) and not getattr(metric, 'format_only', False):
            metric.outfile_prefix = None
    return evaluator


@contextlib.contextmanager
def _unchanged(runner: Runner, loop: ValLoop) -> Iterator[None]:
    """Put everything back that a validation changes, and let it say nothing."""
    modes = [(module, module.training) for module in runner.model.modules()]
    buffers = [(buffer, buffer.clone()) for buffer in runner.model.buffers()]
    hub = runner.message_hub
    infos, scalars = dict(hub.runtime_info), copy.deepcopy(hub.log_scalars)
    for_python, for_numpy = random.getstate(), np.random.get_state()
    members, level = dict(vars(loop)), runner.logger.level
    used = torch.cuda.is_available() and torch.cuda.is_initialized()
    devices = range(torch.cuda.device_count()) if used else ()
    try:
        with (
            torch.random.fork_rng(devices),
            mock.patch.object(runner, 'call_hook'),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            runner.logger.setLevel(logging.CRITICAL)  # "no results": of one batch, no wonder
            yield
    finally:
        runner.logger.setLevel(level)
        vars(loop).update(members)
        random.setstate(for_python)
        np.random.set_state(for_numpy)
        for saved, now in ((infos, hub.runtime_info), (scalars, hub.log_scalars)):
            now.clear()
            now.update(saved)
        for buffer, before in buffers:
            buffer.copy_(before)
        for module, training in modes:
            module.training = training


def _describe(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        'the validation, tried with one batch before training, fails: '
        f'{type(error).__name__}: {error}\n'
        f'It was raised in {frame.filename}, line {frame.lineno}, in {frame.name}:\n'
        f'    {frame.line}\n'
        'Look at val_dataloader.dataset.pipeline (are the meta_keys complete?) and val_evaluator. '
        '--no-val-check (default_hooks.val_check=None in the config) trains without this check.'
    )
