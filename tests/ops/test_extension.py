"""The compiled kernels: had wherever a compiler and a place are, and never at the price of an error."""

import ctypes
import os
import signal
import subprocess
import sys
import time

import pytest

from mmdla.ops import build, compiler, extension
from mmdla.ops.compiler import UnavailableError, find_compiler
from mmdla.ops.extension import CHECKSUM, LIBRARY, Kernels, is_finished, processor, provide

STUB = 'extern "C" int answer() { return %d; }\n'
REAL = 'c++'
PROCESS = """
import sys
from pathlib import Path
from mmdla.ops.extension import Kernels, provide
print(provide(Kernels(Path(sys.argv[1]))))
"""


@pytest.fixture
def kernels(tmp_path, monkeypatch) -> Kernels:
    """A library of one function, two places to build it in, and nothing loaded yet."""
    sources = tmp_path / 'csrc'
    sources.mkdir()
    (sources / 'stub.cpp').write_text(STUB % 42)
    monkeypatch.delenv('CXX', raising=False)
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path / 'place'))
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    monkeypatch.setattr(compiler.tempfile, 'tempdir', str(tmp_path))
    stub = Kernels(sources)
    monkeypatch.setattr(extension, 'Kernels', lambda: stub)
    for name, value in dict(tried=False, library=None, reason=None).items():
        monkeypatch.setattr(extension._State, name, value)
    return stub


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What is logged as a warning."""
    found = []

    def log(message, _logger, level=0):
        if level:
            found.append(message)

    monkeypatch.setattr(extension, 'print_log', log)
    return found


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """``fake(script)``: a compiler of another making, named by ``CXX``."""

    def make(script: str):
        path = tmp_path / 'fake-c++'
        path.write_text(f'#!/bin/sh\n{script}\n')
        path.chmod(0o755)
        monkeypatch.setenv('CXX', str(path))
        return path

    return make


def answer(library) -> int:
    return ctypes.CDLL(str(library)).answer()


def test_built_once_and_loaded(kernels, tmp_path, monkeypatch):
    library = provide(kernels)
    assert answer(library) == 42
    assert library.is_relative_to(tmp_path / 'place' / kernels.name)
    assert [path.name for path in sorted(library.parent.iterdir())] == [CHECKSUM, LIBRARY]
    monkeypatch.setattr(compiler.Compiler, 'build', None)
    assert provide(kernels) == library


def test_load_tells_whether_and_tries_once(kernels, monkeypatch):
    calls = []
    monkeypatch.setattr(extension, 'provide', lambda k: calls.append(k) or provide(k))
    assert extension.load() is extension.load() is True
    assert extension.reason() is None
    assert answer(extension.library()) == 42
    assert calls == [kernels]


BROKEN = dict(
    fails=('echo "x.h:3:1: error: no such thing" >&2; exit 1', 'x.h:3:1: error: no such thing'),
    fails_later=(f'case "$*" in *.cpp*) exit 1;; esac; exec {REAL} "$@"', 'exit code 1'),
    crashes=('kill -SEGV $$', f'signal {int(signal.SIGSEGV)}'),
    hangs=('sleep 60', 'took more than'),
    hangs_later=(f'case "$*" in *.cpp*) sleep 60;; esac; exec {REAL} "$@"', 'took more than'),
    makes_rubbish=(
        f'for last; do :; done; case "$*" in *.cpp*) ;; *) exec {REAL} "$@";; esac\n'
        'while [ "$1" != -o ]; do shift; done; echo rubbish > "$2"',
        'cannot be loaded',
    ),
)


@pytest.mark.parametrize('kind', BROKEN)
def test_a_broken_compiler_costs_one_warning(kernels, warnings, fake, monkeypatch, tmp_path, kind):
    script, words = BROKEN[kind]
    monkeypatch.setattr(compiler, 'PROBE_SECONDS', 0.5 if kind == 'hangs' else 30)
    monkeypatch.setattr(compiler, 'BUILD_SECONDS', 0.5)
    path = fake(script)
    start = time.monotonic()
    assert extension.load() is extension.load() is False
    assert time.monotonic() - start < 30
    assert len(warnings) == 1
    assert words in warnings[0] and words in extension.reason()
    assert kind == 'makes_rubbish' or str(path) in warnings[0]
    assert 'reference' in warnings[0] and 'python -m mmdla.ops.build' in warnings[0]
    assert not list(tmp_path.rglob('*.part*'))


@pytest.mark.parametrize(
    ('variable', 'value', 'words'),
    [
        ('PATH', '/nowhere', 'no C++ compiler'),
        ('CXX', 'no-such-c++ -O3', 'no-such-c++'),
        ('CXX', '"unclosed', 'no command'),
        ('CXX', '/proc/version', '/proc/version'),
    ],
)
def test_no_compiler(kernels, warnings, monkeypatch, variable, value, words):
    monkeypatch.setenv(variable, value)
    assert extension.load() is False
    assert len(warnings) == 1 and words in warnings[0]


def test_a_build_of_before_is_used_without_a_compiler(kernels, warnings, monkeypatch):
    library = provide(kernels)
    monkeypatch.setenv('PATH', '/nowhere')
    assert provide(kernels) == library
    assert extension.load() is True and not warnings


def test_another_compilers_build_is_used_where_this_one_fails(kernels, fake):
    library = provide(kernels)
    fake('case "$*" in *--version*) echo another;; *) exit 1;; esac')
    assert provide(kernels) == library


def test_cxx_is_heeded_and_has_builds_of_its_own(kernels, fake, tmp_path):
    first = provide(kernels)
    log = tmp_path / 'log'
    fake(f'echo "$*" >> {log}; [ "$1" = --version ] && echo Another 1.0 && exit; exec {REAL} "$@"')
    second = provide(kernels)
    assert second.parent.parent == first.parent.parent and second != first
    assert 'stub.cpp' in log.read_text()


def test_instructions_that_the_assembler_does_not_know(kernels, fake):
    """The build is done again for any processor of this kind."""
    fake(f'case "$*" in *native*.cpp*) exit 1;; esac; exec {REAL} "$@"')
    assert answer(provide(kernels)) == 42


def test_options_that_the_compiler_does_not_know(kernels, fake, tmp_path):
    log = tmp_path / 'log'
    fake(f'echo "$*" >> {log}; case "$*" in *-m*=native*) exit 1;; esac; exec {REAL} "$@"')
    odd = Kernels(kernels.sources, (*kernels.flags, '-fno-such-option'))
    assert answer(provide(odd)) == 42
    (line,) = [line for line in log.read_text().splitlines() if 'stub.cpp' in line]
    assert '-O3' in line and 'such-option' not in line and 'native' not in line


def test_a_place_that_cannot_be_written(kernels, warnings, monkeypatch, tmp_path):
    """The next one is taken; one warning, and none in the processes after."""
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', '/proc/nope')
    library = provide(kernels)
    assert library.is_relative_to(tmp_path / 'cache')
    assert len(warnings) == 1 and '/proc/nope cannot be written' in warnings[0]
    assert provide(kernels) == library and len(warnings) == 1


def test_no_home(kernels, warnings, monkeypatch, tmp_path):
    """A user without a name and a home, as in containers: a folder that is the user's alone."""
    for name in ('TORCH_EXTENSIONS_DIR', 'XDG_CACHE_HOME', 'HOME'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, 'expanduser', lambda path: path)
    library = provide(kernels)
    assert answer(library) == 42 and not warnings
    place = tmp_path / f'mmdla-{os.getuid()}'
    assert library.is_relative_to(place)
    assert place.stat().st_mode & 0o077 == 0


def test_a_temporary_folder_of_others_is_not_trusted(kernels, monkeypatch, tmp_path):
    planted = tmp_path / f'mmdla-{os.getuid()}'
    planted.mkdir()
    planted.chmod(0o777)
    assert planted not in extension.places()
    planted.chmod(0o755)
    assert planted in extension.places()
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    planted.rename(tmp_path / 'mmdla-12345')
    assert tmp_path / 'mmdla-12345' not in extension.places()


def test_no_place_at_all(kernels, warnings, monkeypatch):
    monkeypatch.setattr(extension, 'places', lambda: [extension.Path('/proc/nope')])
    assert extension.load() is False
    assert len(warnings) == 1 and '/proc/nope cannot be written' in warnings[0]


def test_a_read_only_place_with_a_finished_build(kernels, warnings, monkeypatch, tmp_path):
    library = provide(kernels)
    monkeypatch.setattr(extension, '_locked', None)  # nothing is written, not even a lock
    monkeypatch.setattr(compiler.Compiler, 'build', None)
    assert provide(kernels) == library and not warnings


def test_what_a_killed_build_left(kernels):
    """Half a library, a lock, a folder of parts, PyTorch's own lock: none is used or waited for."""
    folder = provide(kernels).parent
    library = folder / LIBRARY
    half = library.read_bytes()[:5000]
    library.unlink()  # this process still uses it
    library.write_bytes(half)
    assert not is_finished(folder)
    (folder.parent / f'{folder.name}.partx').mkdir()
    (folder.parent / f'{folder.name}.lock').touch()
    (folder.parent / 'lock').touch()
    assert answer(provide(kernels)) == 42
    assert is_finished(folder) and not list(folder.parent.glob('*.part*'))


def test_a_library_that_does_not_load_is_built_anew(kernels):
    folder = provide(kernels).parent
    (folder / LIBRARY).unlink()
    (folder / LIBRARY).write_bytes(b'for another machine')
    (folder / CHECKSUM).write_text(extension._checksum(folder / LIBRARY))
    assert is_finished(folder)
    assert answer(provide(kernels)) == 42


def test_a_file_system_without_locks(kernels, monkeypatch):
    def acquire(_self, *_args, **_kwargs):
        raise OSError(extension.errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(extension.FileLock, 'acquire', acquire)
    assert answer(provide(kernels)) == 42


def test_two_processes_build_once_and_one_that_is_killed_does_no_harm(kernels, fake, tmp_path):
    log = tmp_path / 'log'
    fake(f'case "$*" in *.cpp*) echo build >> {log}; sleep 1;; esac; exec {REAL} "$@"')
    command = [sys.executable, '-c', PROCESS, str(kernels.sources)]
    pipes = dict(stdout=subprocess.PIPE, text=True)
    first, second = (subprocess.Popen(command, **pipes) for _ in range(2))
    while not log.exists():
        time.sleep(0.05)
    outputs = [process.communicate(timeout=100)[0].split()[-1] for process in (first, second)]
    assert outputs[0] == outputs[1] == str(provide(kernels))
    assert log.read_text().split() == ['build']

    (kernels.sources / 'stub.cpp').write_text(STUB % 7)
    third = subprocess.Popen(command, **pipes)
    while log.read_text().split() == ['build']:
        time.sleep(0.05)
    third.kill()
    third.communicate(timeout=100)
    assert answer(provide(kernels)) == 7


def test_what_shares_a_build(kernels, monkeypatch, tmp_path):
    other = Kernels(kernels.sources, (*kernels.flags, '-DX'))
    assert other.name != kernels.name == Kernels(kernels.sources).name
    before = kernels.name
    monkeypatch.setattr(extension.torch, '__version__', '9.9')
    assert kernels.name != before
    monkeypatch.undo()
    (kernels.sources / 'stub.cpp').write_text(STUB % 43)
    assert kernels.name != before


def test_processors_are_told_apart(tmp_path):
    """x86 lists its instructions as "flags", Arm as "Features", of each core."""

    def read(text: str) -> str:
        path = tmp_path / 'cpuinfo'
        path.write_text(text)
        return processor(path)

    x86 = 'processor : {}\ncpu MHz : {}\nflags\t\t: fpu sse {}\n'
    assert read(x86.format(0, 1000, 'avx')) == read(x86.format(1, 2000, 'avx'))
    assert read(x86.format(0, 1000, 'avx')) != read(x86.format(0, 1000, 'avx avx2'))
    arm = 'processor : 0\nBogoMIPS : {}\nFeatures\t: fp asimd {}\nCPU part\t: {}\n'
    assert read(arm.format(50, 'sve', '0xd40')) == read(arm.format(60, 'sve', '0xd40'))
    assert read(arm.format(50, 'sve', '0xd40')) != read(arm.format(50, '', '0xd40'))
    assert read(arm.format(50, '', '0xd40')) != read(arm.format(50, '', '0xd0c'))
    assert processor(tmp_path / 'none') is not None  # macOS


def test_nothing_of_the_process_is_changed(kernels):
    before = dict(os.environ)
    levels = {name: extension.logging.getLogger(name).level for name in ('', 'torch', 'mmengine')}
    extension.load()
    assert dict(os.environ) == before
    assert levels == {name: extension.logging.getLogger(name).level for name in levels}


def test_command(kernels, capsys, monkeypatch):
    assert build.main([]) == 0
    assert str(extension.library()) in capsys.readouterr().out
    monkeypatch.setattr(extension._State, 'library', None)
    monkeypatch.setattr(extension._State, 'reason', 'no C++ compiler')
    assert build.main([]) == 1
    assert 'no C++ compiler' in capsys.readouterr().err


def test_the_compiler_of_this_machine_takes_the_options(monkeypatch):
    monkeypatch.delenv('CXX', raising=False)
    found = find_compiler()
    assert found.command == ('c++',)
    said = subprocess.run(['c++', '--version'], capture_output=True, text=True, check=True).stdout
    assert found.version == said.strip()
    if found.is_gcc:
        assert all(found._takes(flag) for flag in compiler.OPTIMIZE)
    with pytest.raises(UnavailableError, match='nonsense'):
        found._run(['-nonsense'], 30)
