r"""Two depthwise 3x3 convolutions with kernels for every sample and channel, summed, and a norm:

.. math::
    o = k_x * x + k_s * (s + \mathrm{token}), \qquad
    \mathrm{out} = o + \mathrm{bias} \quad\text{or}\quad x + \mathrm{keep} \odot \mathrm{BN}(o)

Maps (B, C, H, W), kernels (B, C, 9), bias (B, C), keep (B, 1), ``None`` for 1. The light layer
attentions fold all of their factors into the two kernels, so that both maps are read once. The
token is the zero of :mod:`mmdla.ops.add_relu_pool`: the gradient of the shortcut goes to it, ``s``
itself gets none.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backend import as_vectors, at_least_float32, match_memory_format
from .batch_norm import BatchNormBackward, combine
from .dwconv_pool import correlation
from .library import define, is_differentiated


def plus_identity(kernels: Tensor, factor: Tensor | float) -> Tensor:
    """Return ``kernels + factor * δ``: (..., C, 9) with the centre increased."""
    centre = (torch.arange(9, device=kernels.device) == 4).to(kernels.dtype)  # (9,)
    return kernels + factor * centre


def _conv(x: Tensor, k: Tensor) -> Tensor:
    """(B, C, H, W) with (B, C, 9) to (B, C, H, W), in float32 at least."""
    batch, channels, height, width = x.shape
    dtype = at_least_float32(x.dtype)
    planes = x.to(dtype).reshape(1, batch * channels, height, width)
    k = k.to(dtype).reshape(batch * channels, 1, 3, 3)
    return F.conv2d(planes, k, padding=1, groups=batch * channels).view(x.shape)


def _sum_of_two(x: Tensor, s: Tensor, kx: Tensor, ks: Tensor) -> Tensor:
    return _conv(x, kx) + _conv(s, ks)


def _as(x: Tensor, out: Tensor) -> Tensor:
    layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    return out.to(x.dtype).contiguous(memory_format=layout)


def _is_channels_last(x: Tensor) -> bool:
    return not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def _like(x: Tensor) -> Tensor:
    layout = torch.channels_last if _is_channels_last(x) else torch.contiguous_format
    return torch.empty_like(x, memory_format=layout)


# with a bias


def dual_dwconv_reference(x, s, token, kx, ks, bias) -> Tensor:
    return _as(x, _sum_of_two(x, s, kx, ks) + bias[..., None, None])


def _kernel(kernels, x, s, token, kx, ks, bias) -> Tensor:
    return kernels.dual_dwconv(x, s, *as_vectors(x, kx, ks, bias))


def _setup_context(ctx, inputs, output) -> None:
    x, s, _, kx, ks, _ = inputs
    ctx.save_for_backward(x, s, kx, ks)


def _backward(ctx, g):
    x, s, kx, ks = ctx.saved_tensors
    gradients = _backward_reference if is_differentiated(g) else dual_dwconv_backward
    dx, ds, dkx, dks, dbias = gradients(g, x, s, kx, ks)
    return dx, None, ds, dkx, dks, dbias


def _backward_reference(g, x, s, kx, ks) -> tuple[Tensor, ...]:
    g = g.to(at_least_float32(x.dtype))
    maps = _as(x, _conv(g, kx.flip(-1))), _as(s, _conv(g, ks.flip(-1)))
    vectors = correlation(g, x), correlation(g, s), g.sum((2, 3))
    return *maps, *(v.to(kx.dtype) for v in vectors)


def _backward_kernel(kernels, g, x, s, kx, ks) -> tuple[Tensor, ...]:
    return kernels.dual_dwconv_backward(match_memory_format(g, x), x, s, *as_vectors(x, kx, ks))


def _backward_fake(g, x, s, kx, ks) -> tuple[Tensor, ...]:
    maps = _like(x), _like(s)
    return *maps, torch.empty_like(kx), torch.empty_like(ks), kx.new_empty(kx.shape[:2])


dual_dwconv_backward = define(
    'dual_dwconv_backward(Tensor g, Tensor x, Tensor s, Tensor kx, Tensor ks)'
    ' -> (Tensor, Tensor, Tensor, Tensor, Tensor)',
    maps=lambda g, x, s, kx, ks: (x, s),
    reference=_backward_reference,
    kernel=_backward_kernel,
    fake=_backward_fake,
)
dual_dwconv = define(
    'dual_dwconv(Tensor x, Tensor s, Tensor token, Tensor kx, Tensor ks, Tensor bias) -> Tensor',
    maps=lambda x, s, *_: (x, s),
    reference=dual_dwconv_reference,
    kernel=_kernel,
    fake=lambda x, *_: _like(x),
    setup_context=_setup_context,
    backward=_backward,
)


# with the statistics of the batch


def _kept(x: Tensor, keep: Tensor | None) -> Tensor:
    return x.new_ones(len(x), 1, dtype=at_least_float32(x.dtype)) if keep is None else keep


def _bn_reference(x, s, token, kx, ks, weight, bias, keep, eps) -> tuple[Tensor, Tensor, Tensor]:
    o = _sum_of_two(x, s, kx, ks)  # (B, C, H, W)
    var, mean = torch.var_mean(o, (0, 2, 3), unbiased=False)  # 2 x (C,)
    scale = weight * (var + eps).rsqrt()  # (C,)
    shift = bias - scale * mean  # (C,)
    normed = o * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)
    return _as(x, x + _kept(x, keep)[..., None, None] * normed), mean, var


def _bn_kernel(kernels, x, s, token, kx, ks, weight, bias, keep, eps):
    kx, ks, weight, bias, keep = as_vectors(x, kx, ks, weight, bias, _kept(x, keep))
    means, m2 = kernels.dual_dwconv_moments(x, s, kx, ks)  # 2 x (B, C)
    mean, var = combine(means, m2, x.shape[2] * x.shape[3])  # 2 x (C,)
    scale = keep * (weight * (var + eps).rsqrt())  # (B, C)
    shift = keep * bias - scale * mean  # (B, C)
    scale = scale.unsqueeze(-1)  # (B, C, 1)
    return kernels.dual_dwconv(x, s, plus_identity(scale * kx, 1.0), scale * ks, shift), mean, var


def _bn_fake(x, s, token, kx, ks, weight, bias, keep, eps):
    vectors = (x.new_empty(x.shape[1], dtype=at_least_float32(x.dtype)) for _ in range(2))
    return _like(x), *vectors


def _bn_setup_context(ctx, inputs, output) -> None:
    x, s, _, kx, ks, weight, _, keep, ctx.eps = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.save_for_backward(x, s, kx, ks, weight, keep, mean, var)


def _bn_backward(ctx, g, _mean, _var):
    gradients = _bn_backward_reference if is_differentiated(g) else dual_dwconv_bn_backward
    dx, ds, dkx, dks, dweight, dbias = gradients(g, *ctx.saved_tensors, ctx.eps)
    return dx, None, ds, dkx, dks, dweight, dbias, None, None


def _bn_backward_reference(g, x, s, kx, ks, weight, keep, mean, var, eps) -> tuple[Tensor, ...]:
    o = _sum_of_two(x, s, kx, ks)  # (B, C, H, W)
    var, mean = torch.var_mean(o, (0, 2, 3), unbiased=False)  # anew, since they depend on x and s
    g = g.to(o.dtype)
    count = x.numel() // x.shape[1]
    rstd, keep = (var + eps).rsqrt(), _kept(x, keep)
    norm = BatchNormBackward(g.sum((2, 3)), (g * o).sum((2, 3)), keep, weight, mean, rstd, count)
    alpha, beta, gamma = (v[..., None, None] for v in (norm.alpha, norm.beta, norm.gamma))
    dx, ds, dkx, dks, _ = _backward_reference(alpha * g + beta * o + gamma, x, s, kx, ks)
    return _as(x, dx + g), ds, dkx, dks, norm.weight, norm.bias


def _bn_backward_kernel(kernels, g, x, s, kx, ks, weight, keep, mean, var, eps):
    g = match_memory_format(g, x)
    kx, ks, weight, keep = as_vectors(x, kx, ks, weight, _kept(x, keep))
    gx, gs, total = kernels.dual_dwconv_correlate(g, x, s)  # 2 x (B, C, 9), (B, C)
    with_o = (kx * gx).sum(-1) + (ks * gs).sum(-1)  # <g, o> of every plane, (B, C)
    count = x.numel() // x.shape[1]
    norm = BatchNormBackward(total, with_o, keep, weight, mean, (var + eps).rsqrt(), count)
    factors = (norm.alpha, norm.beta, norm.gamma)
    found = kernels.dual_dwconv_backward_normed(g, x, s, kx, ks, *factors)
    return *found[:4], norm.weight, norm.bias


def _bn_backward_fake(g, x, s, kx, ks, weight, keep, mean, var, eps):
    vectors = (torch.empty_like(v) for v in (kx, ks, weight, weight))
    return _like(x), _like(s), *vectors


dual_dwconv_bn_backward = define(
    'dual_dwconv_bn_backward(Tensor g, Tensor x, Tensor s, Tensor kx, Tensor ks, Tensor weight,'
    ' Tensor? keep, Tensor mean, Tensor var, float eps)'
    ' -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    maps=lambda g, x, s, *_: (x, s),
    reference=_bn_backward_reference,
    kernel=_bn_backward_kernel,
    fake=_bn_backward_fake,
)
dual_dwconv_bn = define(
    'dual_dwconv_bn(Tensor x, Tensor s, Tensor token, Tensor kx, Tensor ks, Tensor weight,'
    ' Tensor bias, Tensor? keep, float eps) -> (Tensor, Tensor, Tensor)',
    maps=lambda x, s, *_: (x, s),
    reference=_bn_reference,
    kernel=_bn_kernel,
    fake=_bn_fake,
    setup_context=_bn_setup_context,
    backward=_bn_backward,
)
