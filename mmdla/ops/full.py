r"""The full layer attention of a block, ``x + DropPath(scale ⊙ ReLU(norm(o)))``:

.. math:: o = \sum_m w_m \odot v_m

over the value maps ``v_m`` of all blocks so far. The fast path reads the maps once for everything
about them and keeps nothing but them; the gradient of a map is formed once, when the gradients of
all the sums that it is part of are there, and not added up sum by sum.
"""

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from . import backend
from . import norm as norms
from .choice import takes_fast_path


class Pending:
    """Gradients of the sums of one stage and one forward pass that earlier maps still wait for.

    Args:
        num_sums (int): Sums (blocks) of the stage. The backward pass begins with the last.
    """

    def __init__(self, num_sums: int) -> None:
        self.num_sums = num_sums
        self.gradients: dict[int, tuple[Tensor, Tensor]] = {}

    def gradient_of_value(self, index: int, weights: Tensor, gradient: Tensor) -> Tensor:
        """Gradient of map ``index``, from its own sum and the later ones.

        Args:
            index (int): Block of the map.
            weights (Tensor): Weights of that block's sum, shape (B, index + 1, C).
            gradient (Tensor): Gradient of that sum, shape (B, C, H, W).

        Returns:
            Tensor: Shape (B, C, H, W).
        """
        if index == self.num_sums - 1:
            self.gradients.clear()  # what a backward pass that was broken off has left
        self.gradients[index] = (weights, gradient)
        later = [pair for i, pair in self.gradients.items() if i >= index]
        w = torch.stack([weights[:, index] for weights, _ in later], 1)  # (B, n, C)
        total = backend.kernels(gradient).weighted_sum(w, [gradient for _, gradient in later])
        if index == 0:
            self.gradients.clear()
        return total


def full_attention(
    x: Tensor,
    weights: Tensor,
    values: tuple[Tensor, ...],
    norm: nn.Module,
    drop_path: nn.Module,
    scale: Tensor | None,
    pending: Pending,
    ops: str = 'auto',
    x_is_free: bool = False,
) -> Tensor:
    """Output of a block with full layer attention.

    Args:
        x (Tensor): Output of the block, shape (B, C, H, W).
        weights (Tensor): Weights of the maps, shape (B, m, C).
        values (tuple[Tensor]): Maps of the blocks so far, this one's last, m x (B, C, H, W).
        norm (nn.Module): Norm layer of ``o``.
        drop_path (nn.Module): Drop path of the whole branch.
        scale (Tensor, optional): Shape (C, 1, 1); ``None`` is 1.
        pending (Pending): One for the stage and forward pass.
        ops (str): ``'reference'``, ``'fast'``, or ``'auto'``: fast where it can run.
        x_is_free (bool): ``x`` may be overwritten, and no gradients are needed.

    Returns:
        Tensor: Shape (B, C, H, W).
    """
    if takes_fast_path(ops, x, lambda: obstacle(x, values, norm, drop_path)):
        return fast(x, weights, values, norm, drop_path, scale, pending, x_is_free)
    out = norm(weighted_sum(weights, values)).relu()
    return x + drop_path(out if scale is None else scale * out)


def weighted_sum(weights: Tensor, values: tuple[Tensor, ...]) -> Tensor:
    """The reference of ``o``: (B, m, C) and m x (B, C, H, W) to (B, C, H, W)."""
    out = None
    for w, v in zip(weights[..., None, None].unbind(1), values, strict=True):
        out = w * v if out is None else torch.addcmul(out, w, v)
    return out


def obstacle(x, values, norm: nn.Module, drop_path: nn.Module) -> str | None:
    """Why the fast path cannot run, or ``None``."""
    return backend.obstacle(x, *values) or norms.obstacle(x, norm, drop_path)


def fast(x, weights, values, norm, drop_path, scale, pending: Pending, x_is_free) -> Tensor:
    """The fast twin."""
    keep = norms.kept(x, drop_path)  # (B, 1)
    keep = keep.expand_as(x[..., 0, 0]) if scale is None else keep * scale.view(1, -1)  # (B, C)
    *earlier, value = values
    earlier = [v.detach() for v in earlier]  # their gradients come through ``pending``
    if norms.uses_batch_statistics(norm):
        out, mean, var = NormedSum.apply(
            pending, x, weights, keep, norm.weight, norm.bias, norm.eps, value, *earlier
        )
        norms.update_statistics(norm, mean, var, x.numel() // x.shape[1])
        return out
    factor, shift = (v.expand_as(keep) for v in norms.running_affine(norm))  # 2 x (B, C)
    if x_is_free:
        vectors = (t.contiguous() for t in (factor, shift, keep))
        return backend.kernels(x).add_rectified_sum(x, weights.contiguous(), values, *vectors)
    return RectifiedSum.apply(pending, x, weights, keep, factor, shift, value, *earlier)


class RectifiedSum(torch.autograd.Function):
    """``x + keep ⊙ ReLU(factor ⊙ o + shift)``."""

    @staticmethod
    def forward(ctx, pending, x, weights, keep, factor, shift, value, *earlier):
        kernels = backend.kernels(x)
        weights, keep, factor, shift = (t.contiguous() for t in (weights, keep, factor, shift))
        o = kernels.weighted_sum(weights, [*earlier, value])
        ctx.pending = pending
        ctx.save_for_backward(weights, keep, factor, shift, *earlier, value)
        return kernels.add_rectified(x, o, factor, shift, keep)

    @staticmethod
    @once_differentiable
    def backward(ctx, g):
        weights, keep, factor, shift, *values = ctx.saved_tensors
        kernels, g = backend.kernels(g), backend.arranged(g, values[0])
        dots, _, _, total, with_o, o = kernels.rectified_products(g, weights, values, factor, shift)
        alpha, zero = keep * factor, torch.zeros_like(keep)
        kernels.rectified_gradient(o, g, factor, shift, alpha, zero, zero)  # o is now its gradient
        value = ctx.pending.gradient_of_value(len(values) - 1, weights, o)
        of_keep = factor * with_o + shift * total  # (B, C)
        vectors = (alpha.unsqueeze(1) * dots, of_keep, keep * with_o, keep * total)
        return None, g, *vectors, value, *(None for _ in values[1:])


class NormedSum(torch.autograd.Function):
    """``x + keep ⊙ ReLU(BN(o))`` with the statistics of the batch; these are returned too."""

    @staticmethod
    def forward(ctx, pending, x, weights, keep, weight, bias, eps, value, *earlier):
        kernels = backend.kernels(x)
        weights, keep = weights.contiguous(), keep.contiguous()
        means, m2, o = kernels.weighted_sum_moments(weights, [*earlier, value])
        mean, var = norms.combine(means, m2, x.shape[2] * x.shape[3])  # 2 x (C,)
        rstd = (var + eps).rsqrt()
        ctx.pending = pending
        ctx.save_for_backward(weights, keep, weight, bias, mean, rstd, *earlier, value)
        ctx.mark_non_differentiable(mean, var)
        factor, shift = NormedSum.affine(keep, weight, bias, mean, rstd)
        return kernels.add_rectified(x, o, factor, shift, keep), mean, var

    @staticmethod
    def affine(keep, weight, bias, mean, rstd) -> tuple[Tensor, Tensor]:
        factor = weight * rstd  # (C,)
        shift = bias - factor * mean  # (C,)
        return factor.expand_as(keep).contiguous(), shift.expand_as(keep).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, g, _mean, _var):
        weights, keep, weight, bias, mean, rstd, *values = ctx.saved_tensors
        kernels, g = backend.kernels(g), backend.arranged(g, values[0])
        factor, shift = NormedSum.affine(keep, weight, bias, mean, rstd)
        dots, dots_o, sums, total, with_o, o = kernels.rectified_products(
            g, weights, values, factor, shift
        )
        count = g.numel() // g.shape[1]
        grads = norms.Gradients(total, with_o, keep, weight, mean, rstd, count)
        alpha, beta, gamma = (t.unsqueeze(1) for t in (grads.alpha, grads.beta, grads.gamma))
        of_weights = alpha * dots + beta * dots_o + gamma * sums  # (B, m, C)
        kernels.rectified_gradient(o, g, factor, shift, grads.alpha, grads.beta, grads.gamma)
        value = ctx.pending.gradient_of_value(len(values) - 1, weights, o)
        of_keep = factor * with_o + shift * total  # (B, C)
        vectors = (of_weights, of_keep, grads.weight, grads.bias, None)
        return None, g, *vectors, value, *(None for _ in values[1:])
