r"""The end of a residual block and the poolings that layer attention starts with:

.. math:: x = \mathrm{ReLU}(r + s), \quad \mathrm{GAP}(x), \quad \mathrm{GAP}(s)

In training a block's shortcut ``s`` is needed twice, here and by the attention behind. So that its
gradient is completed here, without another pass over a map, the operation also returns
``token = s - s.detach()``: zeros without memory, through which the gradient of ``s`` comes back.
"""

import torch
from torch import Tensor

from .backend import as_vectors, at_least_float32, match_memory_format
from .batch_norm import rounded_affine
from .library import define, is_differentiated


def empty_token(like: Tensor) -> Tensor:
    """Return zeros of the shape of a map that take no memory."""
    return like.new_zeros(()).expand(like.shape)


def pool(x: Tensor) -> Tensor:
    """Return ``GAP(x)``, (B, C, H, W) to (B, C), in float32 at least."""
    return x.mean((2, 3), dtype=at_least_float32(x.dtype))


def _reference(r: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = (r + s).relu()  # (B, C, H, W)
    return x, pool(x), pool(s), empty_token(s)


def _kernel(kernels, r: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return *kernels.add_relu_pool(r, s, *rounded_affine([], 0.0, r), False), empty_token(s)


def _fake(r: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return torch.empty_like(r), *_pools(r), empty_token(s)


def _pools(r: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return tuple(r.new_empty(r.shape[:2], dtype=at_least_float32(r.dtype)) for _ in range(2))


def _setup_context(ctx, inputs, output) -> None:
    ctx.save_for_backward(output[0])
    ctx.set_materialize_grads(False)


def _backward(ctx, g, pooled_x, pooled_s, token):
    (x,) = ctx.saved_tensors
    if is_differentiated(g, pooled_x, pooled_s, token):
        return _backward_reference(g, pooled_x, pooled_s, token, x)
    return add_relu_pool_backward(g, pooled_x, pooled_s, token, x)


def _backward_reference(g, pooled_x, pooled_s, token, x: Tensor) -> tuple[Tensor, Tensor]:
    area = max(x.shape[2] * x.shape[3], 1)
    total = torch.zeros_like(x) if g is None else g
    if pooled_x is not None:
        total = total + pooled_x[..., None, None] / area
    dr = torch.where(x > 0, total, torch.zeros_like(total))  # (B, C, H, W)
    ds = dr if pooled_s is None else dr + pooled_s[..., None, None] / area
    ds = ds if token is None else ds + token
    return dr.to(x.dtype), ds.to(x.dtype) if ds is not dr else ds.to(x.dtype).clone()


def _backward_kernel(kernels, g, pooled_x, pooled_s, token, x: Tensor) -> tuple[Tensor, Tensor]:
    g = torch.zeros_like(x) if g is None else match_memory_format(g, x)
    zero = x.new_zeros(x.shape[:2])
    pooled = as_vectors(x, *(zero if v is None else v for v in (pooled_x, pooled_s)))
    token = None if token is None else match_memory_format(token, x)
    return kernels.add_relu_pool_backward(g, *pooled, token, x)


def _backward_fake(g, pooled_x, pooled_s, token, x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


add_relu_pool_backward = define(
    'add_relu_pool_backward(Tensor? g, Tensor? pooled_x, Tensor? pooled_s, Tensor? token, Tensor x)'
    ' -> (Tensor, Tensor)',
    maps=lambda g, pooled_x, pooled_s, token, x: (x,),
    reference=_backward_reference,
    kernel=_backward_kernel,
    fake=_backward_fake,
)
add_relu_pool = define(
    'add_relu_pool(Tensor r, Tensor s) -> (Tensor, Tensor, Tensor, Tensor)',
    maps=lambda r, s: (r, s),
    reference=_reference,
    kernel=_kernel,
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)


# The same of scale * r + shift, a norm's work, without gradients; r, s: (B, C, H, W), scale, shift:
# (B, C).


def affine_add_relu(r: Tensor, s: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    normed = r * scale[..., None, None] + shift[..., None, None]  # (B, C, H, W)
    return (normed + s).relu().to(r.dtype)


def _affine_reference(r, s, scale, shift) -> tuple[Tensor, Tensor, Tensor]:
    x = affine_add_relu(r, s, scale, shift)
    return x, pool(x), pool(s)


affine_add_relu_pool = define(
    'affine_add_relu_pool(Tensor r, Tensor s, Tensor scale, Tensor shift)'
    ' -> (Tensor, Tensor, Tensor)',
    maps=lambda r, s, *_: (r, s),
    reference=_affine_reference,
    kernel=lambda kernels, r, s, *affine: kernels.add_relu_pool(
        r, s, *as_vectors(r, *affine), False
    ),
    fake=lambda r, *_: (torch.empty_like(r), *_pools(r)),
)
