"""Prepare ``.venv`` with the pinned stack: ``python3 tools/setup/bootstrap.py``.

Runs on the system's Python and its standard library alone. A state file in ``.venv`` counts the
finished steps, so that finished work is reused; it is absent while a step changes ``.venv``, so
that an environment whose set-up was killed half-way is recognised and made anew.
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

import mmcv_wheel

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
STATE = VENV / 'mmdla-state'
LOG = VENV / 'setup.log'
REQUIREMENTS = ROOT / 'requirements'
LAYOUT = 2  # to be raised when the steps change, so that environments are made anew
NEEDED_DISK = 9 * 2**30
INTERRUPTED = 130
VERIFY = 'import mmcv.ops, mmengine, mmdet.apis, mmdet.engine, mmpretrain.apis, mmdla'
KERNELS = 'from mmdla.ops import extension; extension.load()'


class SetupError(RuntimeError):
    """Something that the user has to see to."""


class Step(NamedTuple):
    """One step of the set-up; ``changes_venv`` unless it may be killed without harm to it."""

    title: str
    action: Callable[[], None]
    changes_venv: bool = True


def main() -> int:
    try:
        with only_one():
            if finished_steps() < len(STEPS):
                check_system()
                prepare()
    except (SetupError, mmcv_wheel.BuildError) as error:
        print(f'\nSet-up failed: {error}', file=sys.stderr)
        print('Mend that and run the same command again: finished steps are kept.', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted. Run the same command again to go on.', file=sys.stderr)
        return INTERRUPTED
    return 0


def prepare() -> None:
    """Do the steps that are not done yet."""
    start = time.monotonic()
    done = finished_steps()
    print('Preparing .venv: 5 GB, PyTorch takes a few minutes to download.')
    if not mmcv_wheel.cached(sys.version_info):
        print(f'mmcv is compiled once on this machine: {mmcv_wheel.USUAL}.')
    if done:
        print(f'Going on after step {done} of an earlier set-up.')
    for number, step in enumerate(STEPS[done:], done + 1):
        minutes = (time.monotonic() - start) / 60
        print(f'[{number}/{len(STEPS)}] {step.title} ({minutes:.1f} min so far)', flush=True)
        if step.changes_venv:
            STATE.unlink(missing_ok=True)
        try:
            step.action()
        except SetupError as error:
            if number > 1:
                write_state(number - 1)  # pip undoes what it could not finish
            raise SetupError(f'step {number}, {step.title}: {error}') from None
        write_state(number)
    print(f'Set-up finished after {(time.monotonic() - start) / 60:.1f} min.\n', flush=True)


def check_system() -> None:
    """Refuse early what would fail late."""
    if sys.version_info < (3, 10):  # noqa: UP036 - this is where it is found out
        raise SetupError(f'Python >= 3.10 is needed, this is {sys.version.split()[0]}')
    if not VENV.exists() and shutil.disk_usage(ROOT).free < NEEDED_DISK:
        raise SetupError(f'{NEEDED_DISK >> 30} GB of free disk are needed in {ROOT}')
    if mmcv_wheel.cached(sys.version_info):
        return
    if not any(shutil.which(name) for name in ('c++', 'g++', 'clang++')):
        raise SetupError('no C++ compiler: apt-get install g++')
    if not Path(sysconfig.get_paths()['include'], 'Python.h').exists():
        raise SetupError('Python.h is missing: apt-get install python3-dev')


def make_venv() -> None:
    """Create ``.venv`` with pip; also where Debian's python3-venv (ensurepip) is missing."""
    if VENV.exists():
        print('      removing the earlier .venv, unfinished or for other versions', flush=True)
        shutil.rmtree(VENV)
    if works('import ensurepip'):
        run([sys.executable, '-m', 'venv', str(VENV)], 'python3 -m venv')
    elif works('import pip'):
        run([sys.executable, '-m', 'venv', '--without-pip', str(VENV)], 'python3 -m venv')
        other_pip = [sys.executable, '-m', 'pip', '--python', str(PYTHON)]
        run([*other_pip, 'install', '-r', str(REQUIREMENTS / 'build.txt')], 'installing pip')
    else:
        raise SetupError('Python has no pip: apt-get install python3-pip')
    pip('install', '-r', str(REQUIREMENTS / 'build.txt'))


def install_stack() -> None:
    pip('install', '-r', str(REQUIREMENTS / 'build.txt'), '-r', str(REQUIREMENTS / 'onedl.txt'))
    pip('install', '--no-deps', '-r', str(REQUIREMENTS / 'onedl-mm.txt'))


def build_mmcv() -> None:
    mmcv_wheel.get(PYTHON)


def install_mmcv_and_mmdla() -> None:
    pip('install', '--no-deps', '--force-reinstall', str(mmcv_wheel.get(PYTHON)))
    pip('install', '--no-deps', '--no-build-isolation', '-e', str(ROOT))


def verify() -> None:
    run([str(PYTHON), '-c', VERIFY], 'importing the finished environment')


def compile_kernels() -> None:
    """Compile mmdla's CPU kernels, which it would otherwise do on first use; it runs without."""
    run([str(PYTHON), '-c', KERNELS], "compiling mmdla's CPU kernels")


STEPS = (
    Step('virtual environment', make_venv),
    Step('PyTorch, MMEngine, MMDetection, MMPretrain', install_stack),
    Step('mmcv, compiled', build_mmcv, changes_venv=False),
    Step('mmcv and mmdla, installed', install_mmcv_and_mmdla),
    Step('check that everything can be imported', verify, changes_venv=False),
    Step("mmdla's CPU kernels, compiled", compile_kernels, changes_venv=False),
)


def works(code: str) -> bool:
    """Whether the system's Python runs a line of code."""
    return subprocess.run([sys.executable, '-c', code], capture_output=True).returncode == 0


def pip(*args: str) -> None:
    """Run the environment's pip, showing its progress."""
    command = [str(PYTHON), '-m', 'pip', '--disable-pip-version-check', '--log', str(LOG), *args]
    if not sys.stdout.isatty():
        command += ['--progress-bar', 'off']
    run(command, f'pip {" ".join(args[:3])} …', f', log in {LOG}')


def run(command: list[str], what: str, log: str = '') -> None:
    if subprocess.run(command, cwd=ROOT).returncode:
        raise SetupError(f'{what} failed, see its messages above{log}')


def fingerprint() -> str:
    """Changes with the pins, this Python and the place of the clone."""
    parts = (LAYOUT, sys.version_info[:3], ROOT, mmcv_wheel.with_cuda())
    digest = hashlib.sha256(repr(parts).encode())
    for path in sorted(REQUIREMENTS.glob('*.txt')):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def finished_steps() -> int:
    """How many steps of the set-up ``.venv`` has behind it; 0 where it cannot be trusted."""
    try:
        known, done = STATE.read_text().split()
    except (OSError, ValueError):
        return 0
    return int(done) if known == fingerprint() and PYTHON.exists() else 0


def write_state(done: int) -> None:
    temporary = STATE.with_suffix('.part')
    temporary.write_text(f'{fingerprint()} {done}\n')
    os.replace(temporary, STATE)


@contextlib.contextmanager
def only_one() -> Iterator[None]:
    """Let a second set-up of this clone wait for the first."""
    with open(ROOT / '.setup.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('Another set-up of this clone is running; waiting for it.', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == '__main__':
    sys.exit(main())
