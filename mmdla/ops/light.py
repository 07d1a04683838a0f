r"""The light layer attention of a block, ``x + DropPath(norm(o))``:

.. math::
    o = a \odot V(x) + \lambda \odot (d \odot s + E(s))

with depthwise 3x3 convolutions ``V`` and ``E``. The fast path folds every factor into one 3x3
kernel per sample and channel for each of the two maps, so that both are read once; it keeps only
``x`` and ``s`` for the backward pass.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import BatchNorm2d

from . import extension
from .choice import takes_fast_path


class Weights(NamedTuple):
    """What a block's ``o`` is made with.

    Attributes:
        a (Tensor): Gates of the value, shape (B, C).
        value (Tensor): Weight of ``V``, shape (C, 1, 3, 3).
        lambda_ (Tensor): Shape (C, 1, 1).
        d (Tensor, optional): Refresh of the shortcut, shape (B or 1, C); ``None`` is 1.
        extract (Tensor, optional): Weight of ``E``, shape (C, 1, 3, 3); ``None`` is 0.
    """

    a: Tensor
    value: Tensor
    lambda_: Tensor
    d: Tensor | None = None
    extract: Tensor | None = None


def light_attention(
    x: Tensor, s: Tensor, w: Weights, norm: nn.Module, drop_path: nn.Module, ops: str = 'auto'
) -> Tensor:
    """Output of a block with light layer attention.

    Args:
        x (Tensor): Output of the block, shape (B, C, H, W).
        s (Tensor): Its shortcut, shape (B, C, H, W).
        w (Weights): See there.
        norm (nn.Module): Norm layer of ``o``.
        drop_path (nn.Module): Drop path of the whole branch.
        ops (str): ``'reference'``, ``'fast'``, or ``'auto'``: fast where it can run.

    Returns:
        Tensor: Shape (B, C, H, W).

    Raises:
        RuntimeError: ``ops='fast'`` where the fast path cannot run.
    """
    if takes_fast_path(ops, lambda: obstacle(x, s, norm, drop_path)):
        return fast(x, s, w, norm, drop_path)
    return x + drop_path(norm(attention_map(x, s, w)))


def attention_map(x: Tensor, s: Tensor, w: Weights) -> Tensor:
    """The reference of ``o``, shape (B, C, H, W)."""
    channels = x.shape[1]
    earlier = s if w.d is None else w.d[..., None, None] * s  # (B, C, H, W)
    if w.extract is not None:
        earlier = earlier + F.conv2d(s, w.extract, padding=1, groups=channels)
    value = F.conv2d(x, w.value, padding=1, groups=channels)  # (B, C, H, W)
    return w.a[..., None, None] * value + w.lambda_ * earlier


def obstacle(x: Tensor, s: Tensor, norm: nn.Module, drop_path: nn.Module) -> str | None:
    """Why the fast path cannot run, or ``None``."""
    if x.device.type != 'cpu':
        return f'no fast path for {x.device.type} yet'
    if x.dtype not in (torch.float32, torch.float64) or s.dtype != x.dtype:
        return f'it needs float32 or float64, got {x.dtype} and {s.dtype}'
    if not (x.is_contiguous() and s.is_contiguous()):
        return 'it needs contiguous maps (NCHW)'
    if type(norm) is not BatchNorm2d or not norm.affine:
        return f'it needs an affine BatchNorm2d, got {type(norm).__name__}'
    if norm.weight.dtype != x.dtype:
        return f'parameters are {norm.weight.dtype}, maps {x.dtype}'
    if norm.training and x.numel() == x.shape[1]:
        return 'batch statistics need more than one value per channel'
    if not isinstance(drop_path, (DropPath, nn.Identity)):
        return f'it needs DropPath, got {type(drop_path).__name__}'
    return None if extension.load() is not None else 'the kernels cannot be compiled'


def fast(x: Tensor, s: Tensor, w: Weights, norm: BatchNorm2d, drop_path: nn.Module) -> Tensor:
    """The fast twin: folded kernels, one pass over ``x`` and ``s``."""
    batch, channels = x.shape[:2]
    kx = w.a.unsqueeze(-1) * w.value.view(channels, 9)  # (B, C, 9)
    ks = _kernels_of_shortcut(w, batch)  # (B, C, 9)
    kept = drop_path(x.new_ones(batch, 1, 1, 1)).view(batch, 1)  # 0, or 1 / (1 - rate)
    if norm.training or norm.running_mean is None:
        return _with_batch_statistics(x, s, kx, ks, kept, norm)
    scale = kept * (norm.weight * (norm.running_var + norm.eps).rsqrt())  # (B, C)
    shift = kept * norm.bias - scale * norm.running_mean  # (B, C)
    scale = scale.unsqueeze(-1)  # (B, C, 1)
    return TwoConvs.apply(x, s, _plus_identity(scale * kx, 1.0), scale * ks, shift)


def _kernels_of_shortcut(w: Weights, batch: int) -> Tensor:
    lambda_ = w.lambda_.view(-1, 1)  # (C, 1)
    channels = lambda_.shape[0]
    if w.extract is None:
        extract = lambda_.new_zeros(channels, 9)
    else:
        extract = w.extract.view(channels, 9)
    d = lambda_.new_ones(1, channels) if w.d is None else w.d
    return (lambda_ * _plus_identity(extract, d.unsqueeze(-1))).expand(batch, -1, -1)


def _plus_identity(kernels: Tensor, factor: Tensor | float) -> Tensor:
    """``kernels + factor * δ``: (..., C, 9) with the centre increased."""
    centre = F.one_hot(torch.tensor(4), 9).to(kernels)  # (9,)
    return kernels + factor * centre


class TwoConvs(torch.autograd.Function):
    """``kx * x + ks * s + bias`` with a 3x3 kernel for every sample and channel."""

    @staticmethod
    def forward(ctx, x, s, kx, ks, bias):
        kx, ks = kx.contiguous(), ks.contiguous()  # (B, C, 9)
        ctx.save_for_backward(x, s, kx, ks)
        return extension.load().forward(x, s, kx, ks, bias.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, s, kx, ks = ctx.saved_tensors
        one, zero = x.new_ones(x.shape[:2]), x.new_zeros(x.shape[:2])
        kernels = extension.load()
        return kernels.backward(g.contiguous(), x, s, kx, ks, one, zero, zero, False)


def _with_batch_statistics(x, s, kx, ks, kept, norm: BatchNorm2d) -> Tensor:
    out, mean, var = NormedTwoConvs.apply(x, s, kx, ks, norm.weight, norm.bias, kept, norm.eps)
    if norm.track_running_stats:
        count = x.numel() // x.shape[1]
        _update_statistics(norm, mean, var * (count / max(count - 1, 1)))
    return out


@torch.no_grad()
def _update_statistics(norm: BatchNorm2d, mean: Tensor, var: Tensor) -> None:
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum
    if momentum is None:  # cumulative average
        momentum = 1.0 / norm.num_batches_tracked.to(mean)
    norm.running_mean += momentum * (mean - norm.running_mean)
    norm.running_var += momentum * (var - norm.running_var)


class NormedTwoConvs(torch.autograd.Function):
    """``x + kept * BN(o)``, ``o = kx * x + ks * s``, with the statistics of the batch.

    With ``z = (o - mean) / std``, the gradient of ``o`` is a multiple of the incoming one, of
    ``o`` and of 1 in every plane: it is formed on the way, from maps that are there.
    """

    @staticmethod
    def forward(ctx, x, s, kx, ks, weight, bias, kept, eps):
        kernels = extension.load()
        kx, ks = kx.contiguous(), ks.contiguous()  # (B, C, 9)
        means, m2 = kernels.moments(x, s, kx, ks)  # 2 x (B, C)
        area = x.shape[2] * x.shape[3]
        mean = means.mean(0)  # (C,)
        var = (m2.mean(0) / area) + (means - mean).square().mean(0)  # (C,)
        rstd = (var + eps).rsqrt()
        scale = kept * (weight * rstd)  # (B, C)
        shift = kept * bias - scale * mean  # (B, C)
        folded = _plus_identity(scale.unsqueeze(-1) * kx, 1.0)
        out = kernels.forward(x, s, folded, (scale.unsqueeze(-1) * ks).contiguous(), shift)
        ctx.save_for_backward(x, s, kx, ks, weight, kept, mean, rstd)
        ctx.mark_non_differentiable(mean, var)
        return out, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, g, _mean, _var):
        x, s, kx, ks, weight, kept, mean, rstd = ctx.saved_tensors
        kernels = extension.load()
        g = g.contiguous()
        gx, gs, total = kernels.correlate(g, x, s)  # 2 x (B, C, 9), (B, C)
        count = x.numel() // x.shape[1]
        with_o = (kx * gx).sum(-1) + (ks * gs).sum(-1)  # <g, o> of every plane, (B, C)
        grad_bias = (kept * total).sum(0)  # (C,), also <kept g, 1>
        grad_weight = rstd * ((kept * with_o).sum(0) - mean * grad_bias)  # (C,), also <kept g, z>
        # u = weight * rstd * (kept g - grad_bias / count - z grad_weight / count)
        outer = weight * rstd
        beta = -outer * rstd * grad_weight / count  # (C,)
        gamma = -outer * grad_bias / count - beta * mean  # (C,)
        alpha = kept * outer  # (B, C)
        beta, gamma = (v.expand_as(alpha).contiguous() for v in (beta, gamma))
        dx, ds, dkx, dks, _ = kernels.backward(g, x, s, kx, ks, alpha, beta, gamma, True)
        return dx, ds, dkx, dks, grad_weight, grad_bias, None, None
