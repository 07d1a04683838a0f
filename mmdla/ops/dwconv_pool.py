"""The value map of a block, ``v = V(x)`` with a depthwise 3x3 convolution, and its pooling."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .add_relu_pool import pool
from .backend import as_vectors, at_least_float32, match_memory_format
from .library import define, is_differentiated


def _reference(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    weight = weight.to(x.dtype)
    v = F.conv2d(x, weight, padding=1, groups=x.shape[1])  # (B, C, H, W)
    return v, pool(v)


def _kernel(kernels, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    if not hasattr(kernels, 'dwconv_pool'):  # those for GPUs leave it to the library
        return _reference(x, weight)
    return kernels.dwconv_pool(x, *as_vectors(x, weight))


def _fake(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:2], dtype=at_least_float32(x.dtype))


def correlation(g: Tensor, x: Tensor) -> Tensor:
    """Return the sums of ``g`` times ``x`` as each of the nine taps sees it: (B, C, 9)."""
    height, width = x.shape[2:]
    padded = F.pad(x, (1, 1, 1, 1))
    seen = [padded[:, :, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return torch.stack([(g * v).sum((2, 3)) for v in seen], -1)


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)
    ctx.set_materialize_grads(False)


def _backward(ctx, g, pooled):
    x, weight = ctx.saved_tensors
    if is_differentiated(g, pooled):
        return _backward_reference(g, pooled, x, weight)
    return dwconv_pool_backward(g, pooled, x, weight)


def _backward_reference(g, pooled, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    total = torch.zeros_like(x) if g is None else g
    if pooled is not None:
        total = total + pooled[..., None, None] / max(x.shape[2] * x.shape[3], 1)
    total, taps = total.to(x.dtype), weight.to(x.dtype)
    dx = F.conv2d(total, taps.flip((2, 3)), padding=1, groups=x.shape[1])  # (B, C, H, W)
    return dx, correlation(total, x).sum(0).view_as(weight).to(weight.dtype)  # from (B, C, 9)


def _backward_kernel(kernels, g, pooled, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    if not hasattr(kernels, 'dwconv_pool_backward'):
        return _backward_reference(g, pooled, x, weight)
    g = torch.zeros_like(x) if g is None else match_memory_format(g, x)
    pooled = x.new_zeros(x.shape[:2]) if pooled is None else pooled
    dx, planes = kernels.dwconv_pool_backward(g, *as_vectors(x, pooled), x, *as_vectors(x, weight))
    return dx, planes.sum(0).view_as(weight).to(weight.dtype)  # from (B, C, 9)


def _backward_fake(g, pooled, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


dwconv_pool_backward = define(
    'dwconv_pool_backward(Tensor? g, Tensor? pooled, Tensor x, Tensor weight) -> (Tensor, Tensor)',
    maps=lambda g, pooled, x, weight: (x,),
    reference=_backward_reference,
    kernel=_backward_kernel,
    fake=_backward_fake,
)
dwconv_pool = define(
    'dwconv_pool(Tensor x, Tensor weight) -> (Tensor, Tensor)',
    maps=lambda x, weight: (x,),
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)
