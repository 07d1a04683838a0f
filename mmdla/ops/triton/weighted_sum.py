"""Sums over the blocks of a stage with a weight for every sample and channel, and what follows.

``o = sum_m w_m v_m`` and ``x + keep * ReLU(scale * o + shift)``: m maps v (B, C, H, W); w
(B, m, C); scale, shift, keep (B, C).
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import (
    Tiling,
    add_moments,
    sample_and_channels,
    span,
    store_partial,
    tile,
    tuned,
    vector,
)


@triton.jit
def summed(maps, w, b, c, offsets, mask, channels, ACC: tl.constexpr):
    """A tile of ``o``."""
    o = tl.zeros(mask.shape, ACC)
    for m in tl.static_range(len(maps)):
        weight = vector(w, b * len(maps) + m, c, channels)
        o += weight[None, :] * tl.load(maps[m] + offsets, mask=mask, other=0.0).to(ACC)
    return o


@tuned()
@triton.jit
def sum_kernel(
    maps, w, out, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        o = summed(maps, w, b, c, offsets, mask, channels, ACC)
        tl.store(out + offsets, o, mask=mask)


@tuned()
@triton.jit
def moments_kernel(
    maps, w, out, means, m2s, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    count = tl.zeros((1,), ACC)
    mean = tl.zeros((BLOCK_C,), ACC)
    m2 = tl.zeros((BLOCK_C,), ACC)
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        o = summed(maps, w, b, c, offsets, mask, channels, ACC)
        tl.store(out + offsets, o, mask=mask)
        count, mean, m2 = add_moments(count, mean, m2, o, mask, ACC)
    store_partial(means, b, c, channels, mean)
    store_partial(m2s, b, c, channels, m2)


@tuned()
@triton.jit
def relu_add_kernel(
    x, o, scale, shift, keep, out, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    factor = vector(scale, b, c, channels)[None, :]
    more = vector(shift, b, c, channels)[None, :]
    kept = vector(keep, b, c, channels)[None, :]
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        z = factor * tl.load(o + offsets, mask=mask, other=0.0).to(ACC) + more
        z = tl.where(z < 0, tl.zeros(z.shape, ACC), z)
        total = tl.load(x + offsets, mask=mask, other=0.0).to(ACC) + kept * z
        tl.store(out + offsets, total, mask=mask)


@tuned('out')
@triton.jit
def weighted_sum_relu_add_kernel(
    x, maps, w, scale, shift, keep, out, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    factor = vector(scale, b, c, channels)[None, :]
    more = vector(shift, b, c, channels)[None, :]
    kept = vector(keep, b, c, channels)[None, :]
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        z = factor * summed(maps, w, b, c, offsets, mask, channels, ACC) + more
        z = tl.where(z < 0, tl.zeros(z.shape, ACC), z)  # NaN stays
        total = tl.load(x + offsets, mask=mask, other=0.0).to(ACC) + kept * z
        tl.store(out + offsets, total, mask=mask)


@tuned()
@triton.jit
def products_kernel(
    g, maps, w, scale, shift, out, tv, ov, v1, t1, to, channels, height, width,
    BLOCKS: tl.constexpr, SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    factor = vector(scale, b, c, channels)[None, :]
    more = vector(shift, b, c, channels)[None, :]
    blocks = tl.arange(0, BLOCKS)[None, :]
    t_v = tl.zeros((BLOCK_C, BLOCKS), ACC)
    o_v = tl.zeros((BLOCK_C, BLOCKS), ACC)
    v_1 = tl.zeros((BLOCK_C, BLOCKS), ACC)
    t_1 = tl.zeros((BLOCK_C,), ACC)
    t_o = tl.zeros((BLOCK_C,), ACC)
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        o = summed(maps, w, b, c, offsets, mask, channels, ACC)
        tl.store(out + offsets, o, mask=mask)
        t = tl.load(g + offsets, mask=mask, other=0.0).to(ACC)
        t = tl.where(factor * o + more > 0, t, tl.zeros(t.shape, ACC))
        t_1 += tl.sum(t, 0)
        t_o += tl.sum(t * o, 0)
        for m in tl.static_range(len(maps)):
            v = tl.load(maps[m] + offsets, mask=mask, other=0.0).to(ACC)
            own = blocks == m
            t_v += tl.where(own, tl.sum(t * v, 0)[:, None], 0.0)
            o_v += tl.where(own, tl.sum(o * v, 0)[:, None], 0.0)
            v_1 += tl.where(own, tl.sum(v, 0)[:, None], 0.0)
    store_partial(t1, b, c, channels, t_1)
    store_partial(to, b, c, channels, t_o)
    samples = tl.num_programs(0) // tl.cdiv(channels, BLOCK_C)
    row = (tl.program_id(1).to(tl.int64) * samples + b) * channels
    place = (row + c[:, None]) * len(maps) + blocks
    valid = (c < channels)[:, None] & (blocks < len(maps))
    tl.store(tv + place, t_v, mask=valid)
    tl.store(ov + place, o_v, mask=valid)
    tl.store(v1 + place, v_1, mask=valid)


@tuned('o')
@triton.jit
def gradient_kernel(
    o, g, scale, shift, alpha, beta, gamma, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    factor = vector(scale, b, c, channels)[None, :]
    more = vector(shift, b, c, channels)[None, :]
    of_t = vector(alpha, b, c, channels)[None, :]
    of_o = vector(beta, b, c, channels)[None, :]
    of_1 = vector(gamma, b, c, channels)[None, :]
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        value = tl.load(o + offsets, mask=mask, other=0.0).to(ACC)
        t = tl.load(g + offsets, mask=mask, other=0.0).to(ACC)
        t = tl.where(factor * value + more > 0, t, tl.zeros(t.shape, ACC))
        tl.store(o + offsets, of_t * t + of_o * value + of_1, mask=mask)


def weighted_sum(w: Tensor, values: Sequence[Tensor]) -> Tensor:
    """``o``."""
    grid, maps = Tiling(values[0]), tuple(values)
    out = torch.empty_like(maps[0])
    sum_kernel[grid](maps, *grid.vectors(w), out, **grid.options)
    return out


def weighted_sum_moments(w: Tensor, values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Mean of ``o`` in every plane, sum of its squared deviations from it, 2 x (B, C); and o."""
    grid, maps = Tiling(values[0]), tuple(values)
    out = torch.empty_like(maps[0])
    means, m2 = grid.partial(out), grid.partial(out)
    moments_kernel[grid](maps, *grid.vectors(w), out, means, m2, **grid.options)
    return *grid.moments(means, m2), out


def relu_add(x: Tensor, o: Tensor, scale: Tensor, shift: Tensor, keep: Tensor) -> Tensor:
    """``x + keep * ReLU(scale * o + shift)``."""
    grid = Tiling(x)
    out = torch.empty_like(x)
    relu_add_kernel[grid](x, o, *grid.vectors(scale, shift, keep), out, **grid.options)
    return out


def weighted_sum_relu_add(
    x: Tensor,
    w: Tensor,
    values: Sequence[Tensor],
    scale: Tensor,
    shift: Tensor,
    keep: Tensor,
    in_place: bool,
) -> Tensor:
    """Return the same without forming ``o``, in the place of ``x`` if wanted."""
    grid = Tiling(x)
    out = x if in_place else torch.empty_like(x)
    vectors = grid.vectors(w, scale, shift, keep)
    weighted_sum_relu_add_kernel[grid](x, tuple(values), *vectors, out, **grid.options)
    return out


def relu_products(
    g: Tensor, w: Tensor, values: Sequence[Tensor], scale: Tensor, shift: Tensor
) -> list[Tensor]:
    """With ``t``, which is ``g`` where ``scale * o + shift > 0`` and else 0, for every plane:

    the dot products of t with each v, of o with each v, the sums of each v, 3 x (B, m, C); the sums
    of t and of t o, 2 x (B, C). And o, which the next step needs.
    """
    grid, maps = Tiling(g), tuple(values)
    out = torch.empty_like(maps[0])
    of_blocks = [grid.partial(g, len(maps)) for _ in range(3)]
    sums = [grid.partial(g) for _ in range(2)]
    products_kernel[grid](
        g, maps, *grid.vectors(w, scale, shift), out, *of_blocks, *sums,
        BLOCKS=triton.next_power_of_2(len(maps)), **grid.options,
    )  # fmt: skip
    by_block = [part.sum(0).transpose(1, 2).contiguous() for part in of_blocks]
    return [*by_block, *(part.sum(0) for part in sums), out]


def relu_gradient(o: Tensor, g: Tensor, *vectors: Tensor) -> Tensor:
    """Overwrite ``o`` with its gradient ``alpha t + beta o + gamma``.

    Args:
        o (Tensor): As above, (B, C, H, W).
        g (Tensor): As above, (B, C, H, W).
        vectors (Tensor): Scale, shift, alpha, beta, gamma, each (B, C).
    """
    grid = Tiling(g)
    gradient_kernel[grid](o, g, *grid.vectors(*vectors), **grid.options)
    return o
