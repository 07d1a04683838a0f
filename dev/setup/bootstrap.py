"""Prepare an environment with a pinned stack: ``python3 dev/setup/bootstrap.py [STACK]``.

``STACK`` is ``onedl`` (``.venv``, the default) or ``openmmlab`` (``.venv-openmmlab``). Runs on the
system's Python and its standard library alone. A state file in the environment counts the finished
steps, so that finished work is reused; it is absent while a step changes the environment, so that
one whose set-up was killed half-way is recognised and made anew. Every file that is downloaded is
checked against the hashes in ``requirements``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from stacks import BUILD, ROOT, STACKS, PinError, Stack, lock

from mmdla_command import mmcv_wheel  # after stacks, which puts the clone on the path

LAYOUT = 3  # to be raised when the steps change, so that environments are made anew
NEEDED_DISK = 9 * 2**30
INTERRUPTED = 130
VERIFY = 'import mmcv.ops, mmengine, mmdet.apis, mmdet.engine, mmpretrain.apis, mmdla'
KERNELS = 'from mmdla.ops import extension; extension.load()'


class SetupError(RuntimeError):
    """Something that the user has to see to."""


class Step(NamedTuple):
    """One step of the set-up; ``changes_venv`` unless it may be killed without harm to it."""

    title: str
    action: Callable[[SetUp], None]
    changes_venv: bool = True


def main(argv: list[str]) -> int:
    name = argv[0] if argv else 'onedl'
    if name not in STACKS or len(argv) > 1:
        print(f'usage: bootstrap.py [{"|".join(STACKS)}]', file=sys.stderr)
        return 2
    setup = SetUp(STACKS[name])
    try:
        with only_one():
            if setup.finished_steps() < len(STEPS):
                setup.check_system()
                setup.prepare()
    except (SetupError, PinError, mmcv_wheel.BuildError) as error:
        print(f'\nSet-up failed: {error}', file=sys.stderr)
        print('Fix that and run the same command again: finished steps are kept.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted. Run the same command again to go on.', file=sys.stderr)
        return INTERRUPTED
    return 0


class SetUp:
    """Makes the environment of a stack.

    Args:
        stack (Stack): What is installed, and where.
        root (Path): The clone.
    """

    def __init__(self, stack: Stack, root: Path = ROOT) -> None:
        self.stack = stack
        self.root = root
        self.venv = root / stack.venv
        self.python = self.venv / 'bin' / 'python'
        self.state = self.venv / 'mmdla-state'
        self.log = self.venv / 'setup.log'

    def prepare(self) -> None:
        """Do the steps that are not done yet."""
        start = time.monotonic()
        done = self.finished_steps()
        print(f'Preparing {self.stack.venv}: 5 GB, PyTorch takes a few minutes to download.')
        if not mmcv_wheel.cached(self.stack.mmcv_build(), sys.version_info):
            print(f'mmcv is compiled once on this machine: {self.stack.compile_time}.')
        if done:
            print(f'Going on after step {done} of an earlier set-up.')
        for number, step in enumerate(STEPS[done:], done + 1):
            minutes = (time.monotonic() - start) / 60
            print(f'[{number}/{len(STEPS)}] {step.title} ({minutes:.1f} min so far)', flush=True)
            if step.changes_venv:
                self.state.unlink(missing_ok=True)
            try:
                step.action(self)
            except SetupError as error:
                if number > 1:
                    self.write_state(number - 1)  # pip undoes what it could not finish
                raise SetupError(f'step {number}, {step.title}: {error}') from None
            self.write_state(number)
        print(f'Set-up finished after {(time.monotonic() - start) / 60:.1f} min.\n', flush=True)

    def check_system(self) -> None:
        """Refuse early what would fail late."""
        first, last = self.stack.pythons
        if not first <= sys.version_info[:2] <= last:
            allowed = f'{first[0]}.{first[1]} to {last[0]}.{last[1]}'
            raise SetupError(f'Python {allowed} is needed, this is {sys.version.split()[0]}')
        if sys.platform != 'linux':
            raise SetupError(f'the packages are pinned for Linux, this is {sys.platform}')
        if not self.venv.exists() and shutil.disk_usage(self.root).free < NEEDED_DISK:
            raise SetupError(f'{NEEDED_DISK >> 30} GB of free disk are needed in {self.root}')
        if mmcv_wheel.cached(self.stack.mmcv_build(), sys.version_info):
            return
        if not any(shutil.which(name) for name in ('c++', 'g++', 'clang++')):
            raise SetupError('no C++ compiler: apt-get install g++')
        if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
            raise SetupError('Python.h is missing: apt-get install python3-dev')

    def make_venv(self) -> None:
        """Create it with pip; also where Debian's python3-venv (ensurepip) is missing."""
        if self.venv.exists():
            print(f'      removing the earlier {self.stack.venv}, unfinished or for other versions')
            shutil.rmtree(self.venv)
        if works('import ensurepip'):
            self.run([sys.executable, '-m', 'venv', str(self.venv)], 'python3 -m venv')
        elif works('import pip'):
            create = [sys.executable, '-m', 'venv', '--without-pip', str(self.venv)]
            self.run(create, 'python3 -m venv')
            other_pip = [sys.executable, '-m', 'pip', '--python', str(self.python), 'install']
            self.run([*other_pip, '--require-hashes', '-r', str(lock(BUILD))], 'installing pip')
        else:
            raise SetupError('Python has no pip: apt-get install python3-pip')
        self.install(lock(BUILD))

    def install_stack(self) -> None:
        self.install(self.stack.lock())
        # What has no wheel is built with the setuptools of the lock, not with one fetched for it.
        self.install(self.stack.lock('mm'), '--no-deps', '--no-build-isolation')

    def build_mmcv(self) -> None:
        mmcv_wheel.get(self.stack.mmcv_build(), self.python)

    def install_mmcv_and_mmdla(self) -> None:
        wheel = mmcv_wheel.get(self.stack.mmcv_build(), self.python)
        self.pip('--no-deps', '--force-reinstall', str(wheel))
        self.pip('--no-deps', '--no-build-isolation', '-e', str(self.root))

    def verify(self) -> None:
        self.run([str(self.python), '-c', VERIFY], 'importing the finished environment')

    def compile_kernels(self) -> None:
        """Compile mmdla's CPU kernels, which it would otherwise do on first use."""
        self.run([str(self.python), '-c', KERNELS], "compiling mmdla's CPU kernels")

    def install(self, requirements: Path, *options: str) -> None:
        """Install what a lock names, and nothing whose hash it does not name."""
        self.pip('--require-hashes', *options, '-r', str(requirements))

    def pip(self, *args: str) -> None:
        """Run the environment's ``pip install``, showing its progress."""
        command = [str(self.python), '-m', 'pip', '--disable-pip-version-check']
        command += ['--log', str(self.log), 'install']
        command += [] if sys.stdout.isatty() else ['--progress-bar', 'off']
        self.run([*command, *args], f'pip install {" ".join(args)}', f', log in {self.log}')

    def run(self, command: list[str], what: str, log: str = '') -> None:
        if subprocess.run(command, cwd=self.root).returncode:
            raise SetupError(f'{what} failed, see its messages above{log}')

    def fingerprint(self) -> str:
        """Changes with the pins, this Python and the place of the clone."""
        parts = (LAYOUT, sys.version_info[:3], self.root, mmcv_wheel.with_cuda())
        digest = hashlib.sha256(repr(parts).encode())
        for path in (lock(BUILD), *map(self.stack.lock, ('', 'mm', 'mmcv'))):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    def finished_steps(self) -> int:
        """Return how many steps the environment has behind it; 0 where it cannot be trusted."""
        try:
            known, done = self.state.read_text().split()
        except (OSError, ValueError):
            return 0
        return int(done) if known == self.fingerprint() and self.python.exists() else 0

    def write_state(self, done: int) -> None:
        temporary = self.state.with_suffix('.part')
        temporary.write_text(f'{self.fingerprint()} {done}\n')
        os.replace(temporary, self.state)


STEPS = (
    Step('virtual environment', SetUp.make_venv),
    Step('PyTorch, MMEngine, MMDetection, MMPretrain', SetUp.install_stack),
    Step('mmcv, compiled', SetUp.build_mmcv, changes_venv=False),
    Step('mmcv and mmdla, installed', SetUp.install_mmcv_and_mmdla),
    Step('check that everything can be imported', SetUp.verify, changes_venv=False),
    Step("mmdla's CPU kernels, compiled", SetUp.compile_kernels, changes_venv=False),
)


def works(code: str) -> bool:
    """Return whether the system's Python runs a line of code."""
    return subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let a second set-up of this clone wait for the first."""
    with open(ROOT / '.setup.lock', 'w') as lock_file:
        try:
            fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('Another set-up of this clone is running; waiting for it.', flush=True)
            fcntl.flock(lock_file, fcntl.LOCK_EX)
        yield


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
