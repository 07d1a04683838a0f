"""The end of a residual block, ``x = ReLU(r + s)``, and the poolings that attention starts with."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import BatchNorm2d

from . import backend
from .choice import takes_fast_path
from .norm import at_least_float32, running_affine

Pooled = tuple[Tensor, Tensor]  # GAP(x), GAP(s): 2 x (B, C)


def join(r: Tensor, s: Tensor, ops: str = 'auto') -> tuple[Tensor, Pooled | None]:
    """Add a shortcut to a residual and rectify the sum, in the place of the residual.

    Args:
        r (Tensor): Residual, shape (B, C, H, W), overwritten.
        s (Tensor): Shortcut, shape (B, C, H, W).
        ops (str): ``'reference'``, ``'fast'``, or ``'auto'``: fast where it can run.

    Returns:
        tuple[Tensor, Pooled | None]: ``x`` (B, C, H, W); with the fast path also ``GAP(x)`` and
        ``GAP(s)``, which cost nothing there.
    """
    if takes_fast_path(ops, r, lambda: backend.obstacle(r, s)):
        x, pooled_x, pooled_s = Join.apply(r, s)
        return x, (pooled_x, pooled_s)
    r += s
    return r.relu_(), None


def join_normed(r: Tensor, s: Tensor, norm: BatchNorm2d) -> tuple[Tensor, Pooled]:
    """:func:`join` of ``norm(r)``, which is not formed; from the kernels, without gradients.

    Args:
        r (Tensor): Residual before its last norm, shape (B, C, H, W); may be overwritten.
        s (Tensor): Shortcut, shape (B, C, H, W).
        norm (BatchNorm2d): With running statistics.
    """
    return r, backend.kernels(r).join_forward(r, s, *affine_of(norm, r))


def pools_of_join(r: Tensor, s: Tensor, norm: BatchNorm2d | None) -> Pooled:
    """The poolings of :func:`join_normed` alone; ``None`` is no norm."""
    return backend.kernels(r).join_pooled(r, s, *affine_of(norm, r))


def affine_of(norm: BatchNorm2d | None, r: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm with running statistics for the kernels, 2 x (B, C)."""
    dtype, size = at_least_float32(r.dtype), r.shape[:2]
    if norm is None:
        return r.new_ones(size, dtype=dtype), r.new_zeros(size, dtype=dtype)
    return tuple(v.to(dtype).expand(size).contiguous() for v in running_affine(norm))


class Join(torch.autograd.Function):
    """``ReLU(r + s), GAP(ReLU(r + s)), GAP(s)``."""

    @staticmethod
    def forward(ctx, r, s):
        pooled = backend.kernels(r).join_forward(r, s, *affine_of(None, r))  # 2 x (B, C)
        ctx.mark_dirty(r)
        ctx.save_for_backward(r)
        return r, *pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, g, pooled_x, pooled_s):
        (x,) = ctx.saved_tensors
        vectors = (v.contiguous() for v in (pooled_x, pooled_s))
        return backend.kernels(x).join_backward(backend.arranged(g, x), *vectors, x)
