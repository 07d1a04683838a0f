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
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import BatchNorm2d

from . import backend
from . import norm as norms
from .choice import takes_fast_path
from .join import Handover, affine_of


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
    x: Tensor,
    s: Tensor,
    w: Weights,
    norm: nn.Module,
    drop_path: nn.Module,
    ops: str = 'auto',
    handover: Handover | None = None,
) -> Tensor:
    """Output of a block with light layer attention.

    Args:
        x (Tensor): Output of the block, shape (B, C, H, W).
        s (Tensor): Its shortcut, shape (B, C, H, W).
        w (Weights): See there.
        norm (nn.Module): Norm layer of ``o``.
        drop_path (nn.Module): Drop path of the whole branch.
        ops (str): ``'reference'``, ``'fast'``, or ``'auto'``: fast where it can run.
        handover (Handover, optional): That of :func:`join`, where ``x`` comes from it.

    Returns:
        Tensor: Shape (B, C, H, W).

    Raises:
        RuntimeError: ``ops='fast'`` where the fast path cannot run.
    """
    if takes_fast_path(ops, x, lambda: obstacle(x, s, norm, drop_path)):
        return fast(x, s, w, norm, drop_path, handover)
    return x + drop_path(norm(attention_map(x, s, w)))


def light_attention_of_join(
    r: Tensor,
    s: Tensor,
    w: Weights,
    norm: BatchNorm2d,
    drop_path: nn.Module,
    last_norm: BatchNorm2d | None = None,
) -> Tensor:
    """The same for ``x = ReLU(last_norm(r) + s)``, which is not formed; without gradients.

    Args:
        r (Tensor): Residual, shape (B, C, H, W); may be overwritten with the result.
        s (Tensor): Shortcut, shape (B, C, H, W).
        w (Weights): See there.
        norm (BatchNorm2d): With running statistics.
        drop_path (nn.Module): Drop path of the whole branch.
        last_norm (BatchNorm2d, optional): With running statistics; ``None`` is no norm.

    Returns:
        Tensor: Shape (B, C, H, W).
    """
    vectors = (*affine_of(last_norm, r), *_folded(r, w, norm, drop_path))
    return backend.kernels(r).two_convs_joined(r, s, *vectors)


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
    return backend.obstacle(x, s) or norms.obstacle(x, norm, drop_path)


def fast(
    x: Tensor,
    s: Tensor,
    w: Weights,
    norm: BatchNorm2d,
    drop_path: nn.Module,
    handover: Handover | None = None,
) -> Tensor:
    """The fast twin: folded kernels, one pass over ``x`` and ``s``."""
    if not norms.uses_batch_statistics(norm):
        return TwoConvs.apply(handover, x, s, *_folded(x, w, norm, drop_path))
    keep = norms.kept(x, drop_path)  # (B, 1)
    kernels = _kernels(w, x.shape[0])  # 2 x (B, C, 9)
    affine = norm.weight, norm.bias, keep, norm.eps
    out, mean, var = NormedTwoConvs.apply(handover, x, s, *kernels, *affine)
    norms.update_statistics(norm, mean, var, x.numel() // x.shape[1])
    return out


def _folded(
    x: Tensor, w: Weights, norm: BatchNorm2d, drop_path: nn.Module
) -> tuple[Tensor, Tensor, Tensor]:
    """Everything in the kernels of both maps, 2 x (B, C, 9), and a bias (B, C)."""
    kx, ks = _kernels(w, x.shape[0])  # 2 x (B, C, 9)
    keep = norms.kept(x, drop_path)  # (B, 1)
    scale, shift = (keep * v for v in norms.running_affine(norm))  # 2 x (B, C)
    scale = scale.unsqueeze(-1)  # (B, C, 1)
    return tuple(t.contiguous() for t in (_plus_identity(scale * kx, 1.0), scale * ks, shift))


def _kernels(w: Weights, batch: int) -> tuple[Tensor, Tensor]:
    """Of ``o``, for x and s, each (B, C, 9)."""
    kx = w.a.unsqueeze(-1) * w.value.view(-1, 9)  # (B, C, 9)
    return kx, _kernels_of_shortcut(w, batch)


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
    centre = (torch.arange(9, device=kernels.device) == 4).to(kernels.dtype)  # (9,)
    return kernels + factor * centre


class TwoConvs(torch.autograd.Function):
    """``kx * x + ks * s + bias`` with a 3x3 kernel for every sample and channel."""

    @staticmethod
    def forward(ctx, handover, x, s, kx, ks, bias):
        ctx.handover = handover
        kx, ks = kx.contiguous(), ks.contiguous()  # (B, C, 9)
        ctx.save_for_backward(x, s, kx, ks)
        return backend.kernels(x).two_convs_forward(x, s, kx, ks, bias.contiguous())

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        x, s, kx, ks = ctx.saved_tensors
        g = backend.arranged(g, x)
        gradients = backend.kernels(x).two_convs_backward(g, x, s, kx, ks)
        return None, *_hand_over(ctx, *gradients)


class NormedTwoConvs(torch.autograd.Function):
    """``x + keep * BN(o)`` with the statistics of the batch; these are returned too."""

    @staticmethod
    def forward(ctx, handover, x, s, kx, ks, weight, bias, keep, eps):
        ctx.handover = handover
        kernels = backend.kernels(x)
        kx, ks = kx.contiguous(), ks.contiguous()  # (B, C, 9)
        means, m2 = kernels.two_convs_moments(x, s, kx, ks)  # 2 x (B, C)
        mean, var = norms.combine(means, m2, x.shape[2] * x.shape[3])  # 2 x (C,)
        rstd = (var + eps).rsqrt()
        scale = keep * (weight * rstd)  # (B, C)
        shift = keep * bias - scale * mean  # (B, C)
        scale = scale.unsqueeze(-1)  # (B, C, 1)
        folded = _plus_identity(scale * kx, 1.0)
        ctx.save_for_backward(x, s, kx, ks, weight, keep, mean, rstd)
        ctx.mark_non_differentiable(mean, var)
        return kernels.two_convs_forward(x, s, folded, scale * ks, shift), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx, g, _mean, _var):
        x, s, kx, ks, weight, keep, mean, rstd = ctx.saved_tensors
        kernels, g = backend.kernels(x), backend.arranged(g, x)
        gx, gs, total = kernels.two_convs_correlate(g, x, s)  # 2 x (B, C, 9), (B, C)
        with_o = (kx * gx).sum(-1) + (ks * gs).sum(-1)  # <g, o> of every plane, (B, C)
        count = x.numel() // x.shape[1]
        grads = norms.Gradients(total, with_o, keep, weight, mean, rstd, count)
        factors = (grads.alpha, grads.beta, grads.gamma)
        dx, ds, dkx, dks, _ = kernels.two_convs_backward_normed(g, x, s, kx, ks, *factors)
        gradients = _hand_over(ctx, dx, ds, dkx, dks, grads.weight, grads.bias)
        return None, *gradients, None, None


def _hand_over(ctx, dx: Tensor, ds: Tensor, *rest: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients, that of ``s`` without what the :class:`Handover` takes."""
    if ctx.handover is not None and ctx.needs_input_grad[1] and ctx.needs_input_grad[2]:
        ctx.handover.gradient, ds = ds, None
    return dx, ds, *rest
