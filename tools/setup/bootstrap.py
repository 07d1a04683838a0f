"""Prepare ``.venv`` with the pinned stack: ``python3 tools/setup/bootstrap.py``.

Runs on the system's Python and its standard library alone. Finished work is recognised by a stamp
and reused; whatever an interrupted set-up left behind is repaired or made anew.
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
from collections.abc import Iterator
from pathlib import Path

import mmcv_wheel

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
STAMP = VENV / 'mmdla-ready'
REQUIREMENTS = ROOT / 'requirements'
NEEDED_DISK = 9 * 2**30
INTERRUPTED = 2
VERIFY = 'import mmcv.ops, mmengine, mmdet.apis, mmdet.engine, mmpretrain.apis, mmdla'


class SetupError(RuntimeError):
    """Something that the user has to see to."""


def main() -> int:
    try:
        with only_one():
            if is_ready():
                return 0
            prepare()
    except (SetupError, mmcv_wheel.BuildError) as error:
        print(f'\nSet-up failed: {error}', file=sys.stderr)
        print('Run the same command again when that is mended; finished steps are kept.')
        return 1
    except KeyboardInterrupt:
        print('\nInterrupted. Run the same command again to go on.', file=sys.stderr)
        return INTERRUPTED
    return 0


def prepare() -> None:
    """All steps, each of them safe to repeat."""
    check_system()
    built = mmcv_wheel.cached(sys.version_info)
    print('Preparing .venv (about 5 GB; PyTorch takes a few minutes to download).')
    if not built:
        print('mmcv has to be compiled once on this machine: 12-13 minutes on 2 cores.')
    if VENV.exists() and not STAMP.exists():
        step(1, 'remove what an interrupted set-up left in .venv')
        shutil.rmtree(VENV)
    step(1, 'virtual environment')
    make_venv()
    STAMP.unlink(missing_ok=True)
    step(2, 'PyTorch and the packages of requirements/onedl.txt')
    pip('install', '-r', str(REQUIREMENTS / 'onedl.txt'))
    step(3, 'mmcv')
    wheel = mmcv_wheel.get(PYTHON)
    pip('install', '--no-deps', '--force-reinstall', str(wheel))
    step(4, 'MMEngine, MMDetection, MMPretrain and mmdla')
    pip('install', '--no-deps', '-r', str(REQUIREMENTS / 'onedl-mm.txt'))
    pip('install', '--no-deps', '--no-build-isolation', '-e', str(ROOT))
    step(5, 'check that everything can be imported')
    run([str(PYTHON), '-c', VERIFY], 'the check of the finished environment')
    write_stamp()
    print('Set-up finished.\n')


def step(number: int, what: str) -> None:
    print(f'[{number}/5] {what}', flush=True)


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
    if (
        STAMP.exists()
        and subprocess.run([PYTHON, '-m', 'pip', '-V'], capture_output=True).returncode == 0
    ):
        return
    shutil.rmtree(VENV, ignore_errors=True)
    if (
        subprocess.run([sys.executable, '-c', 'import ensurepip'], capture_output=True).returncode
        == 0
    ):
        run([sys.executable, '-m', 'venv', str(VENV)], 'python3 -m venv')
    else:
        run([sys.executable, '-m', 'venv', '--without-pip', str(VENV)], 'python3 -m venv')
        run(
            [sys.executable, '-m', 'pip', '--python', str(PYTHON), 'install', 'pip'],
            'installing pip',
        )
    pip('install', '--upgrade', '-r', str(REQUIREMENTS / 'build.txt'))


def works(python: str | Path, code: str) -> bool:
    """Whether a Python runs a line of code."""
    return subprocess.run([str(python), '-c', code], capture_output=True).returncode == 0


def pip(*args: str) -> None:
    """Run the environment's pip, showing its progress."""
    command = [str(PYTHON), '-m', 'pip', *args, '--disable-pip-version-check']
    if args[0] == 'install' and not sys.stdout.isatty():
        command += ['--progress-bar', 'off']
    run(command, f'pip {" ".join(args[:3])} …')


def run(command: list[str], what: str) -> None:
    if subprocess.run(command, cwd=ROOT).returncode:
        raise SetupError(f'{what} failed, see its messages above')


def fingerprint() -> str:
    """Changes with the pins, this Python and the place of the clone."""
    digest = hashlib.sha256(f'{sys.version_info[:3]} {ROOT}'.encode())
    for path in (*sorted(REQUIREMENTS.glob('*.txt')), ROOT / 'setup.py'):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_ready() -> bool:
    return STAMP.is_file() and STAMP.read_text() == fingerprint() and PYTHON.exists()


def write_stamp() -> None:
    temporary = STAMP.with_suffix('.part')
    temporary.write_text(fingerprint())
    os.replace(temporary, STAMP)


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
