"""Checkpoints that are there complete or not at all, whenever the process is killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import master_only
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from mmdla.checkpoint.integrity import latest_valid_checkpoint
from mmdla.checkpoint.resume import SCHEME, check_same_model
from mmdla.files import atomic_write, explain_full_disk, part_of

BACKEND = 'atomic_local'


@register_backend(BACKEND)
class AtomicLocalBackend(LocalBackend):
    """Local files of which a reader sees the old or the new content, never a part.

    They are written beside their name, flushed to the disk and renamed. Within
    :meth:`removing_later` files that are to be removed stay until the end, and stay for good
    after an error.
    """

    def __init__(self) -> None:
        self._doomed: dict[str, int] | None = None

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes; after an error the file is as it was before."""
        target = Path(filepath)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(target, durable=True) as part:
            part.write_bytes(obj)

    def remove(self, filepath: str | Path) -> None:
        """Remove a file, now or at the end of :meth:`removing_later`."""
        if self._doomed is None:
            super().remove(filepath)
        else:
            self._doomed[os.fspath(filepath)] = os.stat(filepath).st_ino

    @contextmanager
    def removing_later(self) -> Iterator[None]:
        """Put off what :meth:`remove` is asked for; may be nested."""
        if self._doomed is not None:
            yield
            return
        self._doomed = {}
        try:
            yield
            doomed = self._doomed
        finally:
            self._doomed = None
        for path, inode in doomed.items():
            if os.stat(path).st_ino == inode:  # not the same name, written anew
                super().remove(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` whose checkpoints survive a kill and a full disk.

    It takes the same arguments and writes the same files, and in addition:

    - A checkpoint appears under its name only when all of it is on the disk, and the oldest one
      (``max_keep_ckpts``, ``save_best``) is removed only after that: there has to be room for one
      more.
    - A full disk ends the training with a message; the earlier checkpoints stay.
    - Resuming takes the newest valid checkpoint
      (:func:`~mmdla.checkpoint.latest_valid_checkpoint`) instead of the one that
      ``last_checkpoint`` names, and reads it without executing anything that is in it.
      A checkpoint of another model is refused, and a run that is finished says so.
      What a killed run left half-written is removed.

    Only for local folders; with ``backend_args`` or an address as ``out_dir`` it does what
    MMEngine's does. ``tools/train.py`` uses it by itself. In other tools::

        default_hooks = dict(checkpoint=dict(type='mmdla.engine.AtomicCheckpointHook', interval=1))

    Raises:
        CheckpointError: When training starts, if it is to be resumed and no checkpoint is valid,
            or it is of another model.
        TrainingError: The disk is full.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        remote = '://' in str(self.out_dir or '')
        self.atomic = not (remote or self.backend_args or self.file_client_args)
        if self.atomic:
            self.backend_args = dict(backend=BACKEND)

    def before_run(self, runner: Runner) -> None:
        if not (self.atomic and runner._resume):
            return
        path = runner._load_from
        if path is None:
            folder = checkpoint_folder(runner.work_dir, self.out_dir)
            path = latest_valid_checkpoint(
                runner.work_dir, folder, self.filename_tmpl, runner.logger.warning
            )
        if path is not None and '://' not in str(path) and not os.path.isdir(path):
            runner._load_from = f'{SCHEME}{path}'

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to go on with another model, before anything is loaded into it."""
        super().after_load_checkpoint(runner, checkpoint)
        if not (runner._resume and isinstance(checkpoint.get('state_dict'), dict)):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not any(is_model_wrapper(module) for module in model.modules()):  # parts of it sharded
            check_same_model(checkpoint['state_dict'], model.state_dict())

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        loop = runner.train_loop
        if runner._resume and (loop.iter >= loop.max_iters or loop.epoch >= loop.max_epochs):
            runner.logger.warning(
                f'nothing to do: the run is finished, its checkpoint is of epoch {loop.epoch} of '
                f'{loop.max_epochs}, iteration {loop.iter} of {loop.max_iters}. '
                'To train longer, raise train_cfg.max_epochs or max_iters'
            )
        if self.atomic:
            self._remove_parts()

    @master_only
    def _remove_parts(self) -> None:
        """Remove what a killed run was writing."""
        name = self.filename_tmpl.replace('{}', '*')
        for pattern in (name, f'best_*_{name}'):
            for part in Path(self.out_dir).glob(part_of(Path(pattern)).name):
                part.unlink(missing_ok=True)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        with self._keeping_the_last():
            super()._save_checkpoint_with_step(runner, step, meta)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._keeping_the_last():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _keeping_the_last(self) -> Iterator[None]:
        if not self.atomic:
            yield
            return
        with explain_full_disk(self.out_dir), self.file_backend.removing_later():
            yield


def checkpoint_folder(work_dir: str, out_dir: str | None = None) -> Path:
    """Return where MMEngine's ``CheckpointHook`` puts the checkpoints of a run."""
    if out_dir is None or str(out_dir) == work_dir:
        return Path(work_dir)
    return Path(out_dir, Path(work_dir).name)
