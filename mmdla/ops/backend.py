"""Which compiled kernels serve which maps: C++ on the CPU, Triton on GPUs."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from . import extension


class Backend(NamedTuple):
    """The kernels for one kind of device.

    Attributes:
        load (Callable): Gives them, or ``None`` where they are not to be had.
        dtypes (tuple[torch.dtype]): Of the maps that they take.
        channels_last (bool): Whether they take such maps, besides NCHW.
        lacking (str): What is said where they are not to be had.
        unasked (bool): Whether they run without ``ops='fast'``.
    """

    load: Callable[[], ModuleType | None]
    dtypes: tuple[torch.dtype, ...]
    channels_last: bool
    lacking: str
    unasked: bool = True


@functools.cache
def load_triton() -> ModuleType | None:
    """The Triton kernels, or ``None`` without Triton."""
    try:
        from . import gpu
    except ImportError:
        return None
    return gpu


FULL = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
BACKENDS = {
    'cpu': Backend(extension.load, FULL, False, 'the kernels cannot be compiled'),
    # not unasked until they have run on a GPU: see docs/performance.md
    'cuda': Backend(load_triton, FULL + HALF, True, 'Triton is not installed', unasked=False),
}


def kernels(x: Tensor) -> ModuleType:
    """The kernels for a map without :func:`obstacle`."""
    return BACKENDS[x.device.type].load()


def runs_unasked(x: Tensor) -> bool:
    """Whether ``ops='auto'`` takes the kernels for a map."""
    backend = BACKENDS.get(x.device.type)
    return backend is not None and backend.unasked


def obstacle(*maps: Tensor) -> str | None:
    """Why the kernels cannot work on these maps, or ``None``."""
    first = maps[0]
    backend = BACKENDS.get(first.device.type)
    if backend is None:
        return f'no fast path for {first.device.type}'
    if first.dtype not in backend.dtypes:
        names = ', '.join(str(dtype).removeprefix('torch.') for dtype in backend.dtypes)
        return f'on {first.device.type} it needs {names}, got {first.dtype}'
    if any(m.dtype != first.dtype or m.shape != first.shape for m in maps):
        return 'the maps differ in dtype or shape'
    if any(m.device != first.device for m in maps):
        return 'the maps are on several devices'
    if first.is_cuda and first.device.index != torch.cuda.current_device():
        return f'the maps are on {first.device}, which is not the current device'
    formats = [torch.contiguous_format] + [torch.channels_last] * backend.channels_last
    if not any(all(m.is_contiguous(memory_format=f) for m in maps) for f in formats):
        return f'it needs {" or ".join("NCHW" if f is formats[0] else "NHWC" for f in formats)}'
    return None if backend.load() is not None else backend.lacking


def arranged(gradient: Tensor, x: Tensor) -> Tensor:
    """A gradient in the layout of the map that it belongs to."""
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return gradient.to(x.dtype).contiguous(memory_format=layout)
