"""Which implementation of an operation runs."""

import os
from collections.abc import Callable

import torch
from torch import Tensor

from .backend import runs_unasked

OPS = ('auto', 'reference', 'fast')
VARIABLE = 'MMDLA_OPS'


def check_ops(ops: str) -> str:
    """``'auto'``, ``'reference'`` or ``'fast'``."""
    if ops not in OPS:
        raise ValueError(f'ops must be one of {", ".join(map(repr, OPS))}, got {ops!r}')
    return ops


def forced_ops(ops: str = 'auto') -> str:
    """What an argument and the environment variable ``MMDLA_OPS`` ask for; the argument wins."""
    if ops == 'auto':
        ops = os.environ.get(VARIABLE) or 'auto'
        if ops not in OPS:
            raise ValueError(f'{VARIABLE} must be one of {", ".join(OPS)}, got {ops!r}')
    return ops


def takes_fast_path(ops: str, x: Tensor, obstacle: Callable[[], str | None]) -> bool:
    """Whether the fast implementation runs.

    Args:
        ops (str): The argument of the caller.
        x (Tensor): One of the maps.
        obstacle (Callable): Says why the fast implementation cannot run here, or ``None``.

    Raises:
        RuntimeError: It was asked for and cannot run.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False  # a compiler or exporter sees plain operations
    wanted = forced_ops(ops)
    if wanted == 'reference' or (wanted == 'auto' and not runs_unasked(x)):
        return False
    reason = obstacle()
    if reason is not None and wanted == 'fast':
        raise RuntimeError(f"ops='fast' cannot be used: {reason}")
    return reason is None
