"""The end of a residual block, ``x = ReLU(r + s)``, and the poolings that attention starts with."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import BatchNorm2d

from . import backend
from .choice import takes_fast_path
from .norm import at_least_float32, rounded_affine


class Pooled(NamedTuple):
    """What comes along with ``x``.

    Attributes:
        x (Tensor): ``GAP(x)``, (B, C).
        s (Tensor): ``GAP(s)``, (B, C).
        handover (Handover): For the one operation that ``x`` goes to.
    """

    x: Tensor
    s: Tensor
    handover: 'Handover'


class Handover:
    """Takes the gradient of ``s`` from the operation behind :func:`join` to it.

    There it is completed in place, where autograd would add up two maps. Only an operation that is
    the one consumer of ``x`` and returns a fresh gradient for it may use this.
    """

    def __init__(self) -> None:
        self.gradient: Tensor | None = None

    def take(self) -> Tensor | None:
        gradient, self.gradient = self.gradient, None
        return gradient


def join(r: Tensor, s: Tensor, ops: str = 'auto') -> tuple[Tensor, Pooled | None]:
    """Add a shortcut to a residual and rectify the sum, in the place of the residual.

    Args:
        r (Tensor): Residual, shape (B, C, H, W), overwritten.
        s (Tensor): Shortcut, shape (B, C, H, W).
        ops (str): ``'reference'``, ``'fast'``, or ``'auto'``: fast where it can run.

    Returns:
        tuple[Tensor, Pooled | None]: ``x`` (B, C, H, W); with the fast path also ``GAP(x)`` and
        ``GAP(s)``, which cost nothing there, and a :class:`Handover`.
    """
    if takes_fast_path(ops, r, lambda: backend.obstacle(r, s)):
        handover = Handover()
        r = r.clone() if r._is_view() else r  # autograd lets no such operation overwrite a view
        x, *pooled = Join.apply(r, s, handover)
        return x, Pooled(*pooled, handover)
    r += s
    return r.relu_(), None


def join_normed(r: Tensor, s: Tensor, norm: BatchNorm2d) -> tuple[Tensor, Pooled]:
    """:func:`join` of ``norm(r)``, which is not formed; from the kernels, without gradients.

    Args:
        r (Tensor): Residual before its last norm, shape (B, C, H, W); may be overwritten.
        s (Tensor): Shortcut, shape (B, C, H, W).
        norm (BatchNorm2d): With running statistics.
    """
    pooled = backend.kernels(r).join_forward(r, s, *affine_of(norm, r))  # 2 x (B, C)
    return r, Pooled(*pooled, Handover())


def pools_of_join(r: Tensor, s: Tensor, norm: BatchNorm2d | None) -> Pooled:
    """The poolings of :func:`join_normed` alone; ``None`` is no norm."""
    return Pooled(*backend.kernels(r).join_pooled(r, s, *affine_of(norm, r)), Handover())


def affine_of(norm: BatchNorm2d | None, r: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm with running statistics for the kernels, 2 x (B, C)."""
    dtype, size = at_least_float32(r.dtype), r.shape[:2]
    if norm is None:
        return r.new_ones(size, dtype=dtype), r.new_zeros(size, dtype=dtype)
    return tuple(v.to(dtype).expand(size).contiguous() for v in rounded_affine(norm))


class Join(torch.autograd.Function):
    """``ReLU(r + s), GAP(ReLU(r + s)), GAP(s)``."""

    @staticmethod
    def forward(ctx, r, s, handover):
        pooled = backend.kernels(r).join_forward(r, s, *affine_of(None, r))  # 2 x (B, C)
        ctx.mark_dirty(r)
        ctx.save_for_backward(r)
        ctx.handover = handover
        return r, *pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, g, *pooled):
        (x,) = ctx.saved_tensors
        kernels, g = backend.kernels(x), backend.arranged(g, x)
        pooled = [v.contiguous() for v in pooled]  # 2 x (B, C)
        ds = ctx.handover.take()
        if ds is None:
            return *kernels.join_backward(g, *pooled, x), None
        kernels.join_backward_in_place(g, *pooled, x, ds)
        return g, ds, None
