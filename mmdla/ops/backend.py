"""Which compiled kernels serve which maps: C++ on the CPU, Triton on GPUs."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import extension


class Backend(NamedTuple):
    """The kernels for one kind of device.

    Attributes:
        load (Callable): Gives them, or ``None`` where they are not to be had.
        dtypes (tuple[torch.dtype]): Of the maps that they take, in NCHW or channels_last.
        unavailable_reason (str): What is said where they are not to be had.
        enabled_by_default (bool): Whether they run without ``ops='fast'``.
    """

    load: Callable[[], Any]
    dtypes: tuple[torch.dtype, ...]
    unavailable_reason: str
    enabled_by_default: bool = True


def load_cpu() -> Any:
    """Return the compiled kernels, or ``None`` where they cannot be built."""
    return torch.ops.mmdla_cpu if extension.load() else None


@functools.cache
def load_triton() -> Any:
    """Return the Triton kernels, or ``None`` without Triton."""
    try:
        from . import triton
    except ImportError:
        return None
    return triton


SINGLE = (torch.float32, torch.float64)
HALF = (torch.float16, torch.bfloat16)
BACKENDS = {
    'cpu': Backend(load_cpu, SINGLE + HALF, 'the kernels cannot be compiled'),
    # not by default until they have run on a GPU: see docs/performance.md
    'cuda': Backend(
        load_triton, SINGLE + HALF, 'Triton is not installed', enabled_by_default=False
    ),
}


def kernels(*maps: Tensor) -> Any:
    """Return the kernels for these maps, or ``None`` where :func:`unsupported_reason` has one."""
    return None if unsupported_reason(*maps) else BACKENDS[maps[0].device.type].load()


def vector_kernels(vector: Tensor) -> Any:
    """Return the kernels for vectors (B, C); only the CPU has any."""
    if vector.device.type != 'cpu' or vector.dtype not in SINGLE:
        return None
    return load_cpu()


def enabled_by_default(x: Tensor) -> bool:
    """Whether ``ops='auto'`` takes the kernels for a map."""
    backend = BACKENDS.get(x.device.type)
    return backend is not None and backend.enabled_by_default


def unsupported_reason(*maps: Tensor) -> str | None:
    """Say why the kernels cannot work on these maps, or return ``None``."""
    first = maps[0]
    device, dtype, shape = first.device, first.dtype, first.shape
    backend = BACKENDS.get(device.type)
    if backend is None:
        return f'there are no kernels for {device.type}'
    if dtype not in backend.dtypes:
        names = ', '.join(str(dtype).removeprefix('torch.') for dtype in backend.dtypes)
        return f'on {device.type} they need {names}, got {dtype}'
    if first.numel() == 0:
        return 'the maps are empty'
    for m in maps[1:]:
        if m.dtype != dtype or m.shape != shape:
            return 'the maps differ in dtype or shape'
        if m.device != device:
            return 'the maps are on several devices'
    if device.type == 'cuda' and device.index != torch.cuda.current_device():
        return f'the maps are on {device}, which is not the current device'
    if not (_all_in(torch.contiguous_format, maps) or _all_in(torch.channels_last, maps)):
        return 'they need NCHW or channels_last'
    return None if _is_there(device.type) else backend.unavailable_reason


def _all_in(layout: torch.memory_format, maps: tuple[Tensor, ...]) -> bool:
    for m in maps:
        if not m.is_contiguous(memory_format=layout):
            return False
    return True


@torch.compiler.assume_constant_result
def _is_there(device_type: str) -> bool:
    return BACKENDS[device_type].load() is not None


def match_memory_format(gradient: Tensor, x: Tensor) -> Tensor:
    """Return a gradient in the dtype and layout of the map that it belongs to."""
    layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
    return gradient.to(x.dtype).contiguous(memory_format=layout)


def as_vectors(x: Tensor, *vectors: Tensor) -> list[Tensor]:
    """Return vectors as the kernels for a map read them: contiguous, in float32 at least."""
    dtype = at_least_float32(x.dtype)
    return [v.to(dtype).contiguous() for v in vectors]


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """Return what vectors and sums of maps of this dtype are computed in."""
    return torch.promote_types(dtype, torch.float32)
