"""The compiled mmcv: built once per machine, kept outside the clone.

pip's own cache does not know which PyTorch a wheel was compiled against, so the wheels lie in
``$MMDLA_CACHE/wheels/torch<version>-<python tag>`` (default of ``MMDLA_CACHE``: ~/.cache/mmdla).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / 'requirements'
POLL_SECONDS = 10
USUAL_MINUTES = 13


class BuildError(RuntimeError):
    """mmcv could not be built."""


def pin(package: str, file: str) -> str:
    """The version that a requirements file pins."""
    match = re.search(rf'^{package}==([^\s;]+)', (REQUIREMENTS / file).read_text(), re.M)
    if not match:
        raise BuildError(f'requirements/{file} does not pin {package}')
    return match[1]


def folder(version_info) -> Path:
    """Where the wheel for this Python and the pinned PyTorch lies."""
    cache = Path(os.environ.get('MMDLA_CACHE') or Path.home() / '.cache' / 'mmdla')
    key = f'torch{pin("torch", "onedl.txt")}-cp{version_info[0]}{version_info[1]}'
    return cache / 'wheels' / key


def cached(version_info) -> Path | None:
    """The whole wheel in the cache, or None."""
    pattern = f'onedl_mmcv-{pin("onedl-mmcv", "mmcv.txt")}-*.whl'
    for wheel in sorted(folder(version_info).glob(pattern)):
        if is_whole(wheel):
            return wheel
    return None


def is_whole(wheel: Path) -> bool:
    """Whether a wheel can be read to its end and holds the compiled ops."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            return archive.testzip() is None and any('mmcv/_ext' in name for name in names)
    except (OSError, zipfile.BadZipFile):
        return False


def get(python: Path) -> Path:
    """The wheel for an environment's ``python``, built if need be.

    Raises:
        BuildError: The build failed; the message names its log.
    """
    version_info = _version_info(python)
    target = folder(version_info)
    target.mkdir(parents=True, exist_ok=True)
    with _only_one(target):
        for part in target.glob('build-*'):  # of a build that was killed
            shutil.rmtree(part, ignore_errors=True)
        wheel = cached(version_info)
        if wheel is None:
            wheel = _build(python, target)
        else:
            print(f'      using {wheel}')
        return wheel


def _version_info(python: Path) -> tuple[int, int]:
    code = 'import sys; print(*sys.version_info[:2])'
    return tuple(map(int, subprocess.check_output([str(python), '-c', code], text=True).split()))


def _build(python: Path, target: Path) -> Path:
    work = target / f'build-{os.getpid()}'
    work.mkdir()
    log = target / 'build.log'
    command = [str(python), '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation']
    command += ['--no-cache-dir', '--no-binary', 'onedl-mmcv', '-w', str(work)]
    command += ['-r', str(REQUIREMENTS / 'mmcv.txt')]
    environment = {**os.environ, 'MMCV_WITH_OPS': '1', 'TMPDIR': str(work)}
    environment['PATH'] = f'{python.parent}{os.pathsep}{environment["PATH"]}'  # its ninja
    print(f'      compiling mmcv, log in {log}', flush=True)
    with open(log, 'w') as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            _show_progress(process, work)
        except BaseException:
            os.killpg(process.pid, 9)
            process.wait()
            raise
    wheels = list(work.glob('onedl_mmcv-*.whl'))
    if process.returncode or not wheels or not is_whole(wheels[0]):
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-15:])
        raise BuildError(f'mmcv could not be compiled; the end of {log}:\n{tail}')
    wheel = target / wheels[0].name
    os.replace(wheels[0], wheel)
    shutil.rmtree(work, ignore_errors=True)
    return wheel


def _show_progress(process: subprocess.Popen, work: Path) -> None:
    start = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return
        print(f'      {progress(work, time.monotonic() - start)}', flush=True)


def progress(work: Path, elapsed: float) -> str:
    """Files compiled so far, and the time that is left."""
    total = 0
    for plan in work.rglob('build.ninja'):
        total += len(re.findall(r'^build \S+\.o:', plan.read_text(), re.M))
    done = sum(1 for _ in work.rglob('*.o'))
    minutes = elapsed / 60
    if not total or not done:
        return f'{minutes:4.1f} min, preparing; about {USUAL_MINUTES} min in all on 2 cores'
    left = minutes * (total - done) / done
    return f'{minutes:4.1f} min, {done}/{total} files compiled, about {left:.0f} min left'


@contextlib.contextmanager
def _only_one(target: Path) -> Iterator[None]:
    with open(target / '.lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('      another set-up is compiling mmcv; waiting for it', flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
