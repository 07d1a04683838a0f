"""The compiled CPU kernels: built once per machine, ahead or on first use, and loaded once.

They register themselves with PyTorch's dispatcher. Where they cannot be had, whatever the reason,
one warning says so and the operations run by their PyTorch reference.
"""

import contextlib
import errno
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from filelock import Timeout as LockTimeoutError
from mmengine.logging import print_log

from .compiler import BUILD_SECONDS, NATIVE, OPTIMIZE, Compiler, UnavailableError, find_compiler

SOURCES = Path(__file__).parent / 'csrc'
LIBRARY = 'kernels.so'
CHECKSUM = 'kernels.sha256'
CPU_FIELDS = ('flags', 'Features', 'CPU implementer', 'CPU part', 'isa', 'cpu')


@dataclass(frozen=True)
class Kernels:
    """A library of kernels and how it is built.

    Args:
        sources (Path): Folder of its C++ files.
        flags (tuple[str]): Options of the compiler.
    """

    sources: Path = SOURCES
    flags: tuple[str, ...] = OPTIMIZE

    @property
    def name(self) -> str:
        """Name of the folder of its builds: tells apart what must not share one, except compilers.

        That is sources, options, a PyTorch (version, commit, ABI) and a kind of processor.
        """
        parts = [path.name + '\n' + path.read_text() for path in sorted(self.sources.iterdir())]
        parts += [*self.flags, *NATIVE, torch.__version__, str(torch.version.git_version)]
        parts += [str(torch.compiled_with_cxx11_abi()), platform.machine(), processor()]
        return f'mmdla_{_digest(parts)}'

    def find(self, compiler: Compiler | None) -> Iterator[Path]:
        """Give the folders of finished builds, in each place; without a compiler those of all."""
        for place in places():
            folder = place / self.name
            wanted = '*' if compiler is None else _digest([compiler.identity])
            with contextlib.suppress(OSError):
                yield from (build for build in sorted(folder.glob(wanted)) if is_finished(build))

    def build(self, compiler: Compiler) -> Path:
        """Build in the first place that can be written.

        Returns:
            Path: Folder of the finished build.

        Raises:
            UnavailableError: No place can be written, or the compiler fails.
        """
        problems = []
        for place in places():
            folder = place / self.name
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with _locked(folder / f'{_digest([compiler.identity])}.lock'):
                    built = self._build_in(folder, compiler)
            except OSError as error:
                problems.append(f'{place} cannot be written ({error.strerror or error})')
                continue
            if problems:
                _warn(f'{"; ".join(problems)}: the CPU kernels of mmdla are in {place}')
            return built
        raise UnavailableError('; '.join(problems) or 'there is no folder to build in')

    def _build_in(self, folder: Path, compiler: Compiler) -> Path:
        build = folder / _digest([compiler.identity])
        if is_finished(build):  # by another process, while this one waited
            return build
        for stale in folder.glob(f'{build.name}.part*'):  # of a build that was killed
            shutil.rmtree(stale, ignore_errors=True)
        part = Path(tempfile.mkdtemp(dir=folder, prefix=f'{build.name}.part'))
        try:
            print_log('Compiling the CPU kernels of mmdla (once, a minute or two)', 'current')
            library = part / LIBRARY
            compiler.build(sorted(self.sources.glob('*.cpp')), library, self.flags)
            (part / CHECKSUM).write_text(_checksum(library))
            part.chmod(0o755)  # for the other users of a shared place
            shutil.rmtree(build, ignore_errors=True)  # a damaged one
            part.rename(build)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        return build


def places() -> list[Path]:
    """Return the folders that may hold builds, in the order in which they are asked.

    ``TORCH_EXTENSIONS_DIR``, PyTorch's cache in the home of the user, and a folder of temporary
    files that is the user's alone.
    """
    found = [os.environ.get('TORCH_EXTENSIONS_DIR'), _home_cache(), _private_temporary_folder()]
    return list(dict.fromkeys(Path(place).absolute() for place in found if place))


def _home_cache() -> str | None:
    cache = os.environ.get('XDG_CACHE_HOME')
    home = os.path.expanduser('~')  # '~' where there is neither HOME nor a known user
    if not cache and os.path.isabs(home):
        cache = os.path.join(home, '.cache')
    return os.path.join(cache, 'torch_extensions') if cache else None


def _private_temporary_folder() -> str | None:
    """A folder in which nobody else can have put a library for us to load."""
    try:
        path = os.path.join(tempfile.gettempdir(), f'mmdla-{os.getuid()}')
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        status = os.lstat(path)
    except (OSError, AttributeError):
        return None
    mine = status.st_uid == os.getuid() and status.st_mode & 0o170022 == 0o040000
    return path if mine else None


def processor(cpuinfo: Path = Path('/proc/cpuinfo')) -> str:
    """Return what tells processors apart that cannot run each other's native code."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    found = {' '.join(line.split()) for line in lines if line.split(':')[0].strip() in CPU_FIELDS}
    if found:
        return '\n'.join(sorted(found))
    with contextlib.suppress(OSError, subprocess.SubprocessError):  # macOS has no /proc
        name = ['sysctl', '-n', 'machdep.cpu.brand_string']
        return subprocess.run(name, capture_output=True, text=True, check=True, timeout=9).stdout
    return platform.processor()


def is_finished(build: Path) -> bool:
    """Whether a folder holds a library, all of it: a cut one would end the process."""
    try:
        return (build / CHECKSUM).read_text() == _checksum(build / LIBRARY)
    except (OSError, UnicodeDecodeError):
        return False


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One build at a time, where the file system can tell; else the last one to finish stays."""
    lock = FileLock(path, timeout=BUILD_SECONDS)
    try:
        lock.acquire()
    except (LockTimeoutError, NotImplementedError):
        lock = None
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        lock = None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def provide(kernels: Kernels) -> Path:
    """Find or build a library and load it.

    Returns:
        Path: The library, which is loaded.

    Raises:
        UnavailableError: It cannot be had.
    """
    compiler, problem = None, None
    try:
        compiler = find_compiler()
    except UnavailableError as error:
        problem = error
    for build in kernels.find(compiler):
        with contextlib.suppress(OSError):
            return _loaded(build)
    if compiler is not None:
        try:
            build = kernels.build(compiler)
            return _loaded(build)
        except UnavailableError as error:
            problem = error
        except OSError as error:
            shutil.rmtree(build, ignore_errors=True)  # to be built anew
            problem = UnavailableError(f'the library cannot be loaded ({error})')
        for build in kernels.find(None):  # another compiler's will do
            with contextlib.suppress(OSError):
                return _loaded(build)
    raise problem


def _loaded(build: Path) -> Path:
    torch.ops.load_library(build / LIBRARY)
    return build / LIBRARY


class _State:
    """What came of :func:`load` in this process."""

    lock = threading.Lock()
    tried = False
    library: Path | None = None
    reason: str | None = None


def load() -> bool:
    """Load the kernels, once per process, after building them where that has not been done.

    Where they cannot be had, the first call warns and says why.

    Returns:
        bool: Whether they are there.
    """
    if not _State.tried:
        with _State.lock:
            if not _State.tried:
                try:
                    _State.library = provide(Kernels())
                except (UnavailableError, OSError) as error:
                    _State.reason = str(error)
                    _warn(
                        'mmdla runs without its CPU kernels, by their PyTorch reference, which is '
                        f'slower: {error} (python -m mmdla.ops.build tries again)'
                    )
                _State.tried = True
    return _State.library is not None


def reason() -> str | None:
    """Return why :func:`load` gave no kernels, or ``None``."""
    return _State.reason


def library() -> Path | None:
    """Return the library that :func:`load` has loaded, or ``None``."""
    return _State.library


def _warn(text: str) -> None:
    print_log(text, 'current', logging.WARNING)


def _digest(parts: list[str]) -> str:
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
