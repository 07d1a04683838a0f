"""Kill a training again and again and see that it ends in the weights of one that ran through.

Options for tools/train.py come after a ``--``:

    python dev/check_resume.py configs/x.py --kills 20 -- --cfg-options train_cfg.max_epochs=40
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmdla.checkpoint.integrity import latest_valid_checkpoint
from mmdla.checkpoint.resume import load_training_state
from mmdla.cli.command_line import positive, run
from mmdla.errors import InputError

TRAIN = Path(__file__).resolve().parents[1] / 'tools' / 'train.py'
# when a process is killed: while it writes, in an epoch or a validation, while it starts
MOMENTS = ('writing', 'epoch', 'start')
NOT_COMPARED = ('meta', 'message_hub')  # times and dates


@dataclass
class Training:
    """A training in a folder of its own, by processes that may be killed.

    Attributes:
        argv (list[str]): Command line after ``train.py``.
        folder (Path): Work folder.
        starts (int): Processes so far.
    """

    argv: list[str]
    folder: Path
    starts: int = 0
    process: subprocess.Popen = field(init=False)

    def start(self) -> None:
        """Start or go on; what it prints is in ``log/``."""
        self.starts += 1
        log = self.folder / 'log' / f'{self.starts:03d}.txt'
        log.parent.mkdir(parents=True, exist_ok=True)
        argv = [sys.executable, str(TRAIN), *self.argv, '--work-dir', str(self.folder)]
        paths = os.pathsep.join(filter(None, [str(TRAIN.parents[1]), os.getenv('PYTHONPATH')]))
        with log.open('w') as file:
            self.process = subprocess.Popen(
                [*argv, '--exact-resume', '--resume'],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, 'PYTHONPATH': paths},
                start_new_session=True,  # so that its data loading workers are killed with it
            )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def wait_for(self, happened: Callable[[], bool], pause: float = 0.0005) -> bool:
        """Return whether it happened before the process ended by itself."""
        while not happened():
            if self.process.poll() is not None:
                return False
            time.sleep(pause)
        return True

    def finish(self) -> None:
        """Wait for the end.

        Raises:
            InputError: It failed.
        """
        if self.process.wait():
            log = self.folder / 'log' / f'{self.starts:03d}.txt'
            raise InputError(f'the training failed, see {log}:\n{log.read_text()[-1500:]}')

    def parts(self) -> list[Path]:
        """Checkpoints that are being written, or were when the process was killed."""
        return list(self.folder.glob('*.part.pth'))

    def result(self) -> dict:
        """Return the last checkpoint."""
        path = latest_valid_checkpoint(self.folder, self.folder, 'epoch_{}.pth', print)
        if path is None:
            raise InputError(f'{self.folder}: the training wrote no checkpoint of an epoch')
        return load_training_state(str(path), 'cpu')


def stamps(folder: Path) -> dict[str, int]:
    """Checkpoints by name, and when they were written."""
    found = {}
    for path in folder.glob('epoch_*.pth'):
        if path.suffixes[0] == '.part':
            continue
        try:
            found[path.name] = path.stat().st_mtime_ns
        except FileNotFoundError:  # renamed or removed meanwhile
            continue
    return found


def kill_at(
    training: Training, moment: str, rng: random.Random, seconds: float, of_an_epoch: float
) -> bool:
    """Kill the process at a random time of such a moment; whether it still ran then.

    Args:
        training (Training): Has just been started.
        moment (str): One of ``MOMENTS``.
        rng (random.Random): Chooses the time.
        seconds (float): Of a start, until the first checkpoint is written.
        of_an_epoch (float): Seconds from one checkpoint to the next.
    """
    before = stamps(training.folder)
    old_parts = {path.name: path.stat().st_mtime_ns for path in training.parts()}

    def writes() -> bool:
        return any(p.name not in old_parts for p in training.parts())

    if moment == 'start':
        end = time.monotonic() + rng.uniform(0, seconds)
        alive = training.wait_for(
            lambda: time.monotonic() > end or stamps(training.folder) != before
        )
    elif moment == 'epoch':
        alive = training.wait_for(lambda: stamps(training.folder) != before)
        end = time.monotonic() + rng.uniform(0, 1.5 * of_an_epoch)
        alive = alive and training.wait_for(lambda: time.monotonic() > end)
    else:
        if old_parts:  # the next start removes it
            training.wait_for(lambda: not training.parts())
            old_parts = {}
        alive = training.wait_for(writes)
        time.sleep(rng.choice((0, 0, 0.001, 0.003)))
    if alive and training.process.poll() is None:
        training.kill()
        return True
    return False


def differences(first: Any, second: Any, name: str = '') -> Iterator[str]:
    """Names of the tensors and values that are not the same bit for bit."""
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        if first.dtype != second.dtype or not torch.equal(first, second):
            yield name
    elif isinstance(first, dict) and isinstance(second, dict):
        for key in first.keys() | second.keys():
            if key in first and key in second:
                yield from differences(first[key], second[key], f'{name}.{key}')
            else:
                yield f'{name}.{key}'
    elif isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        if len(first) != len(second):
            yield name
        for number, pair in enumerate(zip(first, second, strict=False)):
            yield from differences(*pair, f'{name}[{number}]')
    elif isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        if not np.array_equal(first, second):
            yield name
    elif first != second:
        yield name


def count_tensors(value: Any) -> int:
    if isinstance(value, dict):
        return sum(map(count_tensors, value.values()))
    if isinstance(value, (list, tuple)):
        return sum(map(count_tensors, value))
    return int(isinstance(value, torch.Tensor))


def state(checkpoint: dict) -> dict:
    """Return what has to be equal: weights, optimizer, schedulers, averages, and how far it got."""
    progress = {key: checkpoint['meta'][key] for key in ('epoch', 'iter', 'seed')}
    return {k: v for k, v in checkpoint.items() if k not in NOT_COMPARED} | {'progress': progress}


def parse_args(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage='%(prog)s [options] CONFIG [-- options of tools/train.py]',
    )
    parser.add_argument('config', help='config that trains by epochs; best with many short ones')
    parser.add_argument('--kills', type=positive, default=20, help='default: 20')
    parser.add_argument('--seed', type=int, default=0, help='of the moments; default: 0')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/check_resume'))
    own, others = list(argv), []
    if '--' in own:
        others = own[own.index('--') + 1 :]
        own = own[: own.index('--')]
    args = parser.parse_args(own)
    args.options = others
    return args


def main(argv: Sequence[str]) -> None:
    args = parse_args(argv)
    rng = random.Random(args.seed)
    if args.work_dir.exists() and any(args.work_dir.iterdir()):
        raise InputError(f'--work-dir {args.work_dir} is not empty')
    command = [args.config, *args.options]

    whole = Training(command, args.work_dir / 'whole')
    begin = time.monotonic()
    whole.start()
    whole.wait_for(lambda: bool(stamps(whole.folder)))
    seconds = time.monotonic() - begin
    whole.finish()
    epochs = whole.result()['meta']['epoch']
    of_an_epoch = (time.monotonic() - begin - seconds) / max(1, epochs - 1)
    print(f'uninterrupted: {time.monotonic() - begin:.0f} s, first checkpoint at {seconds:.1f} s')

    killed = Training(command, args.work_dir / 'killed')
    moments = [MOMENTS[i % len(MOMENTS)] for i in range(args.kills)]
    rng.shuffle(moments)
    torn = 0
    for number, moment in enumerate(moments, 1):
        killed.start()
        if not kill_at(killed, moment, rng, seconds, of_an_epoch):
            killed.finish()
            raise InputError(
                f'the training ended before kill {number} of {args.kills}: give it more epochs '
                '(train_cfg.max_epochs, default_hooks.checkpoint.interval=1)'
            )
        torn += bool(killed.parts())
        newest = max(stamps(killed.folder), default='none', key=stamps(killed.folder).get)
        print(f'kill {number} ({moment}), newest checkpoint: {newest}', flush=True)
    killed.start()
    killed.finish()

    first, second = state(whole.result()), state(killed.result())
    different = sorted(differences(first, second))
    if killed.parts():
        raise InputError(f'left behind: {killed.parts()}')
    if different:
        raise InputError(
            f'{len(different)} of {count_tensors(first)} tensors differ from those of the '
            f'uninterrupted run: {", ".join(different[:8])}'
        )
    print(
        f'{args.kills} kills, {torn} of them while a checkpoint was half-written: all '
        f'{count_tensors(first)} tensors of weights and optimizer are equal, bit for bit'
    )


if __name__ == '__main__':
    sys.exit(run(main))
