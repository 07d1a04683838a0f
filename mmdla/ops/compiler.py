"""The C++ compiler of this machine, asked what it can do and never waited for without end."""

import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

CANDIDATES = ('c++', 'g++', 'clang++')
PROBE_SECONDS = 30  # for --version and empty files
BUILD_SECONDS = 900  # a whole build takes two minutes on one free core
OPTIMIZE = ('-O3', '-fno-math-errno', '-fassociative-math', '-fno-signed-zeros',
            '-fno-trapping-math', '-fno-tree-loop-distribute-patterns',
            # a sum has the same order wherever its numbers lie: the same bits every time
            '--param=vect-max-peeling-for-alignment=0')  # fmt: skip
NATIVE = ('-march=native', '-mcpu=native')  # the first that the compiler takes
TORCH = Path(torch.__file__).parent


class UnavailableError(Exception):
    """The kernels cannot be had; the message says why."""


@dataclass(frozen=True)
class Compiler:
    """A compiler that answers.

    Args:
        command (tuple[str]): How it is called, e.g. ``('ccache', 'g++')``.
        version (str): What it says of itself.
    """

    command: tuple[str, ...]
    version: str

    @property
    def identity(self) -> str:
        """Tells apart compilers whose code may differ, not where they are installed."""
        return ' '.join((self.version, *self.command[1:]))

    @property
    def is_gcc(self) -> bool:
        return 'Free Software Foundation' in self.version

    def build(self, sources: Sequence[Path], target: Path, flags: Sequence[str]) -> None:
        """Compile sources to a shared library that PyTorch can load.

        What the compiler does not take of ``flags`` is left out, and the instructions that only
        this processor has where its assembler does not know them.

        Args:
            sources (Sequence[Path]): The ``.cpp`` files.
            target (Path): The library.
            flags (Sequence[str]): Options of the compiler.

        Raises:
            UnavailableError: With the first error of the compiler.
        """
        taken = [flag for flag in flags if self._takes(flag)]
        native = [flag for flag in NATIVE if self._takes(flag)][:1]
        openmp, libraries = self._openmp()
        fixed = [*_compile_options(), *openmp, *taken]
        inputs = [*map(str, sources), '-o', str(target), *_link_options(), *libraries]
        try:
            self._run([*fixed, *native, *inputs], BUILD_SECONDS)
        except _FailedError:
            if not native:
                raise
            self._run([*fixed, *inputs], BUILD_SECONDS)

    def _takes(self, flag: str) -> bool:
        """Whether an empty file can be compiled with an option."""
        try:
            self._run([flag, '-S', '-x', 'c++', os.devnull, '-o', '-'], PROBE_SECONDS)
        except UnavailableError:
            return False
        return True

    def _openmp(self) -> tuple[list[str], list[str]]:
        """Options for the threads of ``at::parallel_for``, with the library that PyTorch uses.

        Another copy of it would have threads of its own, which ``torch.set_num_threads`` does not
        reach. GCC's code runs with each of the libraries, clang's does not.
        """
        if not (self.is_gcc and self._takes('-fopenmp')):
            return [], []
        own = sorted((TORCH / 'lib').glob('lib*omp*.so*'))
        return ['-fopenmp'], [str(own[0])] if own else ['-fopenmp']

    def _run(self, arguments: Sequence[str], seconds: float) -> str:
        return _run((*self.command, *arguments), seconds)


class _FailedError(UnavailableError):
    """The compiler ended with an error, in time."""


def find_compiler() -> Compiler:
    """Return the compiler that ``CXX`` names, else the first of ``c++``, ``g++``, ``clang++``.

    Raises:
        UnavailableError: There is none, or it does not answer.
    """
    if os.name != 'posix':
        raise UnavailableError(f'they are made for Linux and macOS, not {platform.system()}')
    try:
        command = shlex.split(os.environ.get('CXX', ''))
    except ValueError as error:
        raise UnavailableError(f'CXX={os.environ["CXX"]!r} is no command ({error})') from error
    if command and shutil.which(command[0]) is None:
        raise UnavailableError(f'CXX={os.environ["CXX"]!r}: there is no such compiler')
    if not command:
        found = next((name for name in CANDIDATES if shutil.which(name)), None)
        if found is None:
            raise UnavailableError(
                f'no C++ compiler ({", ".join(CANDIDATES)}) on the PATH, and CXX is not set'
            )
        command = [found]
    return Compiler(tuple(command), _run((*command, '--version'), PROBE_SECONDS).strip())


def _compile_options() -> list[str]:
    include = TORCH / 'include'
    folders = (include, include / 'torch/csrc/api/include', Path(sysconfig.get_path('include')))
    abi = int(torch.compiled_with_cxx11_abi())
    return [
        *('-std=c++17', '-fPIC', '-shared', f'-D_GLIBCXX_USE_CXX11_ABI={abi}'),
        *(option for folder in folders for option in ('-isystem', str(folder))),
    ]


def _link_options() -> list[str]:
    # Python's own symbols are there when the library is loaded; macOS wants to hear that
    dynamic = ['-undefined', 'dynamic_lookup'] if sys.platform == 'darwin' else []
    return [*dynamic, f'-L{TORCH / "lib"}', '-lc10', '-ltorch_cpu', '-ltorch']


def _run(command: Sequence[str], seconds: float) -> str:
    """Run a command in a process group of its own, so that nothing of it outlives a time-out.

    Returns:
        str: What it wrote to its standard output.

    Raises:
        UnavailableError: It cannot be started, fails or takes too long.
    """
    shown = ' '.join(command[:2] if command[1:2] == ('--version',) else command[:1])
    try:
        # files, since a pipe stays open until the last child of the compiler ends
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, 'LC_ALL': 'C'},  # errors in English
            ) as process:
                try:
                    code = process.wait(seconds)
                except BaseException as error:  # Ctrl-C does not reach another session
                    _kill_group(process)
                    if not isinstance(error, subprocess.TimeoutExpired):
                        raise
                    raise UnavailableError(f'{shown} took more than {seconds} s') from error
            output, errors = _content(out), _content(err)
    except OSError as error:
        raise UnavailableError(f'{shown} cannot be run ({error.strerror})') from error
    if code:
        ended = f'was ended by signal {-code}' if code < 0 else f'ended with exit code {code}'
        lines = [line for line in (errors or output).splitlines() if line.strip()]
        first = next((line for line in lines if 'error' in line), next(iter(lines), ''))
        raise _FailedError(f'{shown} {ended}' + (f': {first.strip()}' if first else ''))
    return output


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors='replace')


def _kill_group(process: subprocess.Popen) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()
