"""The compiled mmcv: built once per machine and version of PyTorch, kept outside the environment.

pip's own cache does not know which PyTorch a wheel was compiled against, so the wheels lie in
``$MMDLA_CACHE/wheels/torch<version>-<python tag>`` (default of ``MMDLA_CACHE``: ~/.cache/mmdla).
``make setup`` and ``mmdla install-mmcv`` use the same ones.
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
from typing import NamedTuple

POLL_SECONDS = 10
MEMORY_PER_JOB = 2 * 2**30
NEEDED_BY_MMCV = 'import torch, mmengine, cv2'  # without these no wheel of mmcv can be judged


class BuildError(RuntimeError):
    """mmcv could not be built."""


class Build(NamedTuple):
    """A wheel to compile, and the environment for which.

    Args:
        distribution (str): ``'onedl-mmcv'`` or ``'mmcv'``.
        version (str): Its version.
        torch (str): The version of PyTorch that it is compiled against.
        requirements (Path, optional): File that names the distribution with its hashes; without
            one it is taken by name and version.
        compile_time (str): How long that takes.
        environment (str): What the environment is called in messages.
    """

    distribution: str
    version: str
    torch: str
    requirements: Path | None
    compile_time: str
    environment: str

    @property
    def wheel_name(self) -> str:
        """The distribution as names of wheels spell it."""
        return self.distribution.replace('-', '_')


def with_cuda() -> bool:
    """Return whether CUDA ops are compiled too, which needs nvcc of PyTorch's own CUDA version."""
    return os.environ.get('MMDLA_CUDA') == '1'


def cache() -> Path:
    """Return the folder of what is built once per machine."""
    return Path(os.environ.get('MMDLA_CACHE') or Path.home() / '.cache' / 'mmdla').absolute()


def folder(build: Build, version_info) -> Path:
    """Return where the wheel for a Python and the PyTorch of ``build`` lies."""
    key = f'torch{build.torch}-cp{version_info[0]}{version_info[1]}'
    return cache() / 'wheels' / (key + '-cuda' * with_cuda())


def cached(build: Build, version_info) -> Path | None:
    """Return the valid wheel in the cache, or None."""
    pattern = f'{build.wheel_name}-{build.version}-*.whl'
    for wheel in sorted(folder(build, version_info).glob(pattern)):
        if is_valid(wheel):
            return wheel
    return None


def is_valid(wheel: Path) -> bool:
    """Return whether a wheel can be read to its end and holds the compiled operations."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            return archive.testzip() is None and any('mmcv/_ext' in name for name in names)
    except (OSError, zipfile.BadZipFile):
        return False


def get(build: Build, python: Path) -> Path:
    """Return the wheel for an environment's ``python``, built if need be.

    Raises:
        BuildError: The build failed; the message names its log.
    """
    version_info = _version_info(python)
    target = folder(build, version_info)
    target.mkdir(parents=True, exist_ok=True)
    with _only_one(target):
        for part in target.glob('build-*'):  # of a build that was killed; what still runs ends
            shutil.rmtree(part, ignore_errors=True)
        wheel = cached(build, version_info)
        if wheel is not None:
            trouble = why_not_importable(build, python, wheel)
            if not trouble:
                print(f'      using {wheel}', flush=True)
                return wheel
            print(f'      {wheel} does not work here, compiling it anew:\n{trouble}', flush=True)
        return _build(build, python, target)


def why_not_importable(build: Build, python: Path, wheel: Path) -> str:
    """Unpack a wheel and import its operations; return the end of the error message, or ''."""
    work = wheel.parent / f'build-check-{os.getpid()}'
    try:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work)
        environment = {**os.environ, 'PYTHONPATH': str(work)}
        for code in (NEEDED_BY_MMCV, 'import mmcv.ops'):
            result = subprocess.run(
                [str(python), '-c', code], env=environment, cwd=work, capture_output=True, text=True
            )
            trouble = '\n'.join(result.stderr.splitlines()[-5:])
            if result.returncode and code == NEEDED_BY_MMCV:
                raise BuildError(f'{build.environment} is damaged, remove it:\n{trouble}')
            if result.returncode:
                return trouble or f'exit code {result.returncode}'
        return ''
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _version_info(python: Path) -> tuple[int, int]:
    code = 'import sys; print(*sys.version_info[:2])'
    major, minor = subprocess.check_output([str(python), '-c', code], text=True).split()
    return int(major), int(minor)


def _build(build: Build, python: Path, target: Path) -> Path:
    work = target / f'build-{os.getpid()}'
    work.mkdir()
    log = target / 'build.log'
    log.unlink(missing_ok=True)  # a build that was killed may still write to the old one
    command = [str(python), '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation']
    command += ['--no-cache-dir', '--no-binary', build.distribution, '-w', str(work)]
    if build.requirements:
        command += ['--require-hashes', '-r', str(build.requirements)]
    else:
        command += [f'{build.distribution}=={build.version}']
    print(f'      compiling ({build.compile_time}), log in {log}', flush=True)
    with open(log, 'w') as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_build_environment(python, work),
            start_new_session=True,
        )
        try:
            _show_progress(process, work, build.compile_time)
        except BaseException:
            os.killpg(process.pid, 9)
            process.wait()
            shutil.rmtree(work, ignore_errors=True)
            raise
    wheels = list(work.glob(f'{build.wheel_name}-*.whl'))
    if process.returncode or not wheels or not is_valid(wheels[0]):
        lines = log.read_text(errors='replace').splitlines()[-15:]
        tail = '\n'.join(line[:300] for line in lines)  # compilers' command lines are long
        how = f'exit code {process.returncode}'
        raise BuildError(f'mmcv could not be compiled ({how}); the end of {log}:\n{tail}')
    trouble = why_not_importable(build, python, wheels[0])
    if trouble:
        raise BuildError(f'mmcv was compiled (log in {log}) but does not work:\n{trouble}')
    wheel = target / wheels[0].name
    os.replace(wheels[0], wheel)
    shutil.rmtree(work, ignore_errors=True)
    return wheel


def _build_environment(python: Path, work: Path) -> dict[str, str]:
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    jobs = max(1, min(len(os.sched_getaffinity(0)), memory // MEMORY_PER_JOB))
    environment = {'MAX_JOBS': str(jobs), **os.environ, 'MMCV_WITH_OPS': '1', 'TMPDIR': str(work)}
    environment['PATH'] = f'{python.parent}{os.pathsep}{environment["PATH"]}'  # its ninja
    # mmcv asks PyTorch whether there is a GPU, not whether there is a compiler for it.
    environment |= {'FORCE_CUDA': '1'} if with_cuda() else {'CUDA_VISIBLE_DEVICES': ''}
    return environment


def _show_progress(process: subprocess.Popen, work: Path, usual: str) -> None:
    start = time.monotonic()
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECONDS)
            return
        print(f'      {progress(work, time.monotonic() - start, usual)}', flush=True)


def progress(work: Path, elapsed: float, usual: str) -> str:
    """Files compiled so far, and the time that is left."""
    total = 0
    for plan in work.rglob('build.ninja'):
        total += len(re.findall(r'^build \S+\.o:', plan.read_text(), re.M))
    done = sum(1 for _ in work.rglob('*.o'))
    minutes = elapsed / 60
    if not total or not done:
        return f'{minutes:4.1f} min, preparing; {usual} in all'
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
