"""The compiled CPU kernels: built once per machine, on first use."""

import functools
import hashlib
import logging
import os
import platform
import shutil
import sys
from pathlib import Path
from types import ModuleType

import torch
from filelock import FileLock
from mmengine.logging import print_log

SOURCES = sorted((Path(__file__).parent / 'csrc').iterdir())
FLAGS = ['-O3', '-march=native', '-fno-math-errno', '-fassociative-math', '-fno-signed-zeros',
         '-fno-trapping-math', '-fno-tree-loop-distribute-patterns']  # fmt: skip


@functools.cache
def load() -> bool:
    """Load the kernels, say whether they are there (why not is logged once)."""
    logger = logging.getLogger('torch.utils.cpp_extension')
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns where there is no CUDA, which is not asked for
    from torch.utils import cpp_extension

    logger.setLevel(level)
    tools = os.path.dirname(sys.executable)  # ninja's package puts it beside Python
    if tools not in os.environ.get('PATH', '').split(os.pathsep):
        os.environ['PATH'] = os.pathsep.join((os.environ.get('PATH', ''), tools))
    reason = _obstacle(cpp_extension)
    if reason is None:
        name = f'mmdla_{_key()}'
        folder = Path(cpp_extension._get_build_directory(name, verbose=False))
        if not (folder / f'{name}.so').exists():
            print_log('Compiling the CPU kernels of mmdla (once, about a minute)', 'current')
        try:
            with FileLock(folder.with_name(f'{name}.lock')):
                # PyTorch waits for a file that a killed process may have left; ours ends with it
                (folder / 'lock').unlink(missing_ok=True)
                sources = [str(path) for path in _copied(folder) if path.suffix == '.cpp']
                cpp_extension.load(
                    name, sources, FLAGS, build_directory=str(folder), is_python_module=False
                )
                return True
        except (OSError, RuntimeError, ImportError) as error:
            lines = str(error).strip().splitlines()
            reason = next((line for line in lines if 'error:' in line), lines[0])
    print_log(f'mmdla runs without its CPU kernels: {reason}', 'current', 30)
    return False


def _copied(folder: Path) -> list[Path]:
    """The sources beside their build, which so serves every clone with them."""
    copies = folder / 'src'
    if not copies.exists():
        part = folder / 'src.part'
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for path in SOURCES:
            shutil.copy(path, part)
        part.rename(copies)
    return sorted(copies.iterdir())


def _obstacle(cpp_extension: ModuleType) -> str | None:
    if shutil.which('c++') is None and shutil.which('g++') is None:
        return 'no C++ compiler'
    if not cpp_extension.is_ninja_available():
        return 'no ninja (pip install ninja)'
    return None


def _key() -> str:
    """Tells apart what must not share a build: sources, flags, a PyTorch, a processor."""
    try:
        cpu = next(
            line for line in Path('/proc/cpuinfo').read_text().splitlines() if 'flags' in line
        )
    except (OSError, StopIteration):
        cpu = platform.processor()
    sources = (path.read_text() for path in SOURCES)
    parts = (*sources, *FLAGS, torch.__version__, torch.__file__, platform.machine(), cpu)
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]
