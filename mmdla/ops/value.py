"""The value map of a block, ``v = V(x)`` with a depthwise 3x3 convolution, and its pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import backend
from .choice import takes_fast_path


def value_map(x: Tensor, weight: Tensor, ops: str = 'auto') -> tuple[Tensor, Tensor]:
    """``V(x)`` and ``GAP(V(x))``.

    Args:
        x (Tensor): Output of the block, shape (B, C, H, W).
        weight (Tensor): Weight of ``V``, shape (C, 1, 3, 3).
        ops (str): ``'reference'``, ``'fast'``, or ``'auto'``: fast where it can run. On GPUs both
            are the same: their libraries have this convolution.

    Returns:
        tuple[Tensor, Tensor]: Shapes (B, C, H, W) and (B, C).

    Raises:
        RuntimeError: ``ops='fast'`` where the fast path cannot run.
    """
    if takes_fast_path(ops, x, lambda: obstacle(x, weight)):
        if hasattr(backend.kernels(x), 'conv_pooled'):  # those for GPUs leave it to the library
            return ValueMap.apply(x, weight)
    v = F.conv2d(x, weight, padding=1, groups=x.shape[1])  # (B, C, H, W)
    return v, v.mean((2, 3))


def obstacle(x: Tensor, weight: Tensor) -> str | None:
    """Why the fast path cannot run, or ``None``."""
    if weight.dtype not in (x.dtype, torch.promote_types(x.dtype, torch.float32)):
        return f'parameters are {weight.dtype}, maps {x.dtype}'
    return backend.obstacle(x)


class ValueMap(torch.autograd.Function):
    """One pass over ``x`` for both, and one over ``x`` and the gradient backwards."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return backend.kernels(x).conv_pooled(x, weight.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx, g, of_pooled):
        x, weight = ctx.saved_tensors
        g = backend.arranged(g, x)
        dx, planes = backend.kernels(x).conv_pooled_backward(
            g, of_pooled.contiguous(), x, weight.contiguous()
        )  # (B, C, H, W), (B, C, 9)
        return dx, planes.sum(0).view_as(weight)
