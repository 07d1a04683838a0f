"""One run of a table: whether it is finished, how it is started or resumed, what it reached."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmengine.config import Config

from mmdla.checkpoint import verify_checkpoint
from mmdla.errors import InputError

from .launch import Plan, command
from .tables import Table, row_config

# what decides the result of a run; how its data are loaded, and where from, does not
DECISIVE = ('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'optim_wrapper',
            'param_scheduler', 'train_cfg', 'randomness')  # fmt: skip
NOT_DECISIVE = {'batch_size', 'num_workers', 'persistent_workers', 'pin_memory', 'data_root',
                'ann_file', 'backend_args', 'loss_scale', 'outfile_prefix'}  # fmt: skip
CHECKPOINT = 'epoch_{}.pth'
PATIENCE = 10  # seconds; workers that load data notice after five that their training was killed


@dataclass(frozen=True)
class Run:
    """A row of a table with a seed.

    Args:
        table (Table): The table.
        plan (Plan): What is trained, and where.
        root (Path): The repository.
    """

    table: Table
    plan: Plan
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / self.plan.folder

    def config(self) -> Config:
        """The config that the run has to have."""
        return row_config(self.plan.row, self.root, self.plan.added())

    def logs(self) -> list[Path]:
        """Its logs, the oldest first: every start wrote one."""
        return sorted(self.folder.glob('*/vis_data/scalars.json'))

    def result(self) -> dict[str, float] | None:
        """The metrics after the last epoch, in the table's units; None for an unfinished run.

        Raises:
            InputError: A log is damaged, or is that of another training.
        """
        logs = self.logs()
        if not logs:
            return None
        cfg = self.config()
        for log in logs:
            check_settings(log.with_name('config.py'), cfg)
        metrics = self.table.metrics
        for log in reversed(logs):
            rows = read_scalars(log)
            if not all(isinstance(line.get('step'), int) for line in rows):
                raise InputError(f'{log}: not a log of MMEngine, a line has no step')
            for line in reversed(rows):
                is_last = line['step'] == cfg.train_cfg.max_epochs
                if is_last and all(m.key in line for m in metrics):
                    return {m.label: m.factor * line[m.key] for m in metrics}
        return None

    def checkpoint(self) -> Path | None:
        """The newest whole checkpoint with epochs left after it.

        A run that was killed in its last validation starts its last epoch again: MMEngine does not
        validate what has no epoch left.
        """
        for epoch in range(self.config().train_cfg.max_epochs - 1, 0, -1):
            path = self.folder / CHECKPOINT.format(epoch)
            if verify_checkpoint(path) is None:
                return path
        return None

    def execute(self, gpus: int) -> dict[str, float]:
        """Train, unless that is done; go on from the last checkpoint if there is one.

        Raises:
            InputError: The training failed, or the folder holds another one or one still running.
        """
        with only_one(self.folder) as lock:
            result = self.result()
            if result is not None:
                print(f'{self.plan.folder}: finished before', flush=True)
                return result
            resume = self.checkpoint()
            if resume is not None:
                print(f'{self.plan.folder}: going on from {resume.name}', flush=True)
            argv = command(self.plan, self.config(), gpus, sys.executable, resume)
            paths = os.pathsep.join(filter(None, (str(self.root), os.environ.get('PYTHONPATH'))))
            environment = {**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': paths}
            # the training holds the lock too: it may outlive this process
            code = subprocess.run(
                argv, cwd=self.root, env=environment, pass_fds=(lock.fileno(),)
            ).returncode
            if code:
                raise InputError(
                    f'the training of {self.plan.row.name}, seed {self.plan.seed}, ended with exit '
                    f'code {code}, see its messages above. The same command goes on from here'
                )
            result = self.result()
        if result is None:
            raise InputError(f'{self.plan.folder}: the log has no metrics of the last epoch')
        return result


@contextlib.contextmanager
def only_one(folder: Path, patience: float = PATIENCE) -> Iterator[IO]:
    """Refuse to work in a folder where a training is running.

    Raises:
        InputError: It still runs after ``patience`` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience
    with open(folder / '.lock', 'w') as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    raise InputError(f'{folder}: a training is running there') from None
                time.sleep(0.1)
        yield lock


def read_scalars(log: Path) -> list[dict]:
    """Lines of MMEngine's ``scalars.json``; a last one that was cut off in writing is left out.

    Raises:
        InputError: A line is no JSON object.
    """
    try:
        text = log.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f'{log}: cannot be read ({error})') from error
    rows = []
    for number, line in enumerate(text.split('\n')[:-1], 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f'{log}, line {number}: no valid JSON, {error.msg}') from error
        if not isinstance(row, dict):
            raise InputError(f'{log}, line {number}: not an object')
        rows.append(row)
    return rows


def check_settings(path: Path, cfg: Config) -> None:
    """Compare the config that MMEngine wrote beside a log with the one that the run has to have.

    Raises:
        InputError: There is none, or it differs in what decides the result.
    """
    try:
        found = Config.fromfile(path)
    except Exception as error:  # whatever a damaged Python file can raise
        raise InputError(
            f'{path}: not the config of a training with tools/train.py ({error})'
        ) from error
    lines = []
    for key in DECISIVE:
        lines += differences(key, found.get(key), cfg.get(key))
    if lines:
        raise InputError(
            f'{path.parents[1]} holds another training than the one asked for; remove it, or '
            'choose another --work-dir:\n' + '\n'.join(f'- {line}' for line in lines[:8])
        )


def decisive(cfg: Config) -> dict[str, Any]:
    """The settings of a config that decide the result of its training."""

    def without(settings: Any) -> Any:
        if isinstance(settings, dict):
            return {k: without(v) for k, v in settings.items() if k not in NOT_DECISIVE}
        if isinstance(settings, (list, tuple)):
            return [without(v) for v in settings]
        return settings

    return {key: without(cfg.get(key)) for key in DECISIVE}


def differences(name: str, found: Any, expected: Any) -> Iterator[str]:
    """Settings that differ, one line each."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted({*found, *expected} - NOT_DECISIVE, key=str):
            yield from differences(f'{name}.{key}', found.get(key), expected.get(key))
    elif isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(found) != len(expected):
            yield f'{name}: {len(found)} entries there, {len(expected)} asked for'
            return
        for i, pair in enumerate(zip(found, expected, strict=True)):
            yield from differences(f'{name}[{i}]', *pair)
    elif found != expected:
        yield f'{name}: {found!r} there, {expected!r} asked for'
