"""The end of a residual block, ``x = ReLU(r + s)``, and the poolings that attention starts with."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import backend
from .choice import takes_fast_path

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


def join_pools(r: Tensor, s: Tensor) -> Pooled:
    """``GAP(ReLU(r + s))`` and ``GAP(s)`` alone, from the kernels, without gradients."""
    return backend.kernels(r).join_pooled(r, s)


class Join(torch.autograd.Function):
    """``ReLU(r + s), GAP(ReLU(r + s)), GAP(s)``."""

    @staticmethod
    def forward(ctx, r, s):
        pooled = backend.kernels(r).join_forward(r, s)  # 2 x (B, C)
        ctx.mark_dirty(r)
        ctx.save_for_backward(r)
        return r, *pooled

    @staticmethod
    @once_differentiable
    def backward(ctx, g, pooled_x, pooled_s):
        (x,) = ctx.saved_tensors
        vectors = (v.contiguous() for v in (pooled_x, pooled_s))
        return backend.kernels(x).join_backward(backend.arranged(g, x), *vectors, x)
