r"""How the gradients of many weighted sums over the same maps meet: one pass over each map.

In base layer attention block :math:`l` sums the value maps of all blocks so far,
:math:`o_l = \sum_{m \le l} w_{lm} \odot v_m`, so the gradient of :math:`v_m` is
:math:`\sum_{l \ge m} w_{lm} \odot g_l`. Were each term a gradient of its own, autograd would write
and add up as many maps as there are pairs of blocks. Instead every sum has a pair of tokens, zeros
without memory: one that stands for its map, one for its weights. The tokens of a sum pass through
:func:`carry_gradients` with every value map that it reads, the first block's first, and end in the
sum. Backwards the sum gives its tokens its own ``g`` and ``w`` as their gradients; these go, as
they are, from map to map, each of which makes its gradient of all pairs at once. Whatever part of
the graph runs backwards, a map receives the pairs of the sums that ran.
"""

import torch
from torch import Tensor

from .add_relu_pool import empty_token
from .backend import as_vectors
from .library import define, is_differentiated


def weighted_sum_reference(weights: Tensor, maps: list[Tensor]) -> Tensor:
    """Return the sum of maps, m x (B, C, H, W), with weights (B, m, C): (B, C, H, W)."""
    out = None
    for m, v in enumerate(maps):
        w = weights[:, m, :, None, None]  # (B, C, 1, 1)
        out = w * v if out is None else torch.addcmul(out, w, v.to(out.dtype))
    return out


weighted_sum = define(
    'weighted_sum(Tensor weights, Tensor[] maps) -> Tensor',
    maps=lambda weights, maps: maps,
    reference=lambda weights, maps: weighted_sum_reference(weights, maps).to(maps[0].dtype),
    kernel=lambda kernels, weights, maps: kernels.weighted_sum(*as_vectors(maps[0], weights), maps),
    fake=lambda weights, maps: torch.empty_like(maps[0]),
)


def new_tokens(value: Tensor, weights: Tensor, num_blocks: int) -> list[Tensor]:
    """Return the tokens of all sums of a stage, ``2 * num_blocks``, maps before weights.

    Args:
        value (Tensor): A value map (B, C, H, W).
        weights (Tensor): A descriptor (B, C) in the dtype of the weights.
        num_blocks (int): Blocks of the stage; block ``l`` has ``l + 1`` weights, (B, l + 1, C).
    """
    batch, channels = weights.shape
    zero = weights.new_zeros(())
    return [empty_token(value) for _ in range(num_blocks)] + [
        zero.expand(batch, block + 1, channels) for block in range(num_blocks)
    ]


def _reference(value: Tensor, index: int, tokens: list[Tensor]) -> list[Tensor]:
    return [t.new_zeros(()).expand(t.shape) for t in tokens]


def _setup_context(ctx, inputs, output) -> None:
    value, ctx.index, tokens = inputs
    ctx.dtype, ctx.count = value.dtype, len(tokens)
    ctx.layout = torch.contiguous_format if value.is_contiguous() else torch.channels_last
    ctx.set_materialize_grads(False)


def _backward(ctx, gradients: list[Tensor | None]):
    gradients = list(gradients)
    half = ctx.count // 2
    pairs = [
        (g, w) for g, w in zip(gradients[:half], gradients[half:], strict=True) if g is not None
    ]
    if not pairs:
        return None, None, gradients
    weights = torch.stack([w[:, ctx.index] for _, w in pairs], 1)  # (B, n, C)
    maps = [g for g, _ in pairs]
    if is_differentiated(*gradients):
        return weighted_sum_reference(weights, maps), None, gradients
    maps = [g.to(ctx.dtype).contiguous(memory_format=ctx.layout) for g in maps]
    return weighted_sum(weights, maps), None, gradients


carry_gradients = define(
    'carry_gradients(Tensor value, int index, Tensor[] tokens) -> Tensor[]',
    maps=lambda value, index, tokens: (value,),
    reference=_reference,
    kernel=lambda kernels, *args: _reference(*args),
    fake=_reference,
    setup_context=_setup_context,
    backward=_backward,
)
