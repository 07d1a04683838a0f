"""The end of a residual block, ``x = ReLU(scale * r + shift + s)``, with the poolings."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tiles import Tiling, sample_and_channels, span, store_partial, tile, tuned, vector


@tuned('out')
@triton.jit
def forward_kernel(
    r, s, scale, shift, out, sums_x, sums_s, channels, height, width,
    STORED: tl.constexpr, SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    factor = vector(scale, b, c, channels)[None, :]
    more = vector(shift, b, c, channels)[None, :]
    sum_x = tl.zeros((BLOCK_C,), ACC)
    sum_s = tl.zeros((BLOCK_C,), ACC)
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        shortcut = tl.load(s + offsets, mask=mask, other=0.0).to(ACC)
        total = factor * tl.load(r + offsets, mask=mask, other=0.0).to(ACC) + more + shortcut
        x = tl.where((total < 0) | (mask == 0), tl.zeros(total.shape, ACC), total)  # NaN stays
        if STORED:
            tl.store(out + offsets, x, mask=mask)
        sum_x += tl.sum(x, 0)
        sum_s += tl.sum(shortcut, 0)
    store_partial(sums_x, b, c, channels, sum_x)
    store_partial(sums_s, b, c, channels, sum_s)


@tuned()
@triton.jit
def backward_kernel(
    g, of_x, of_s, more, x, dr, ds, channels, height, width,
    ADDED: tl.constexpr, SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    area = height * width
    more_x = vector(of_x, b, c, channels)[None, :] / area
    more_s = vector(of_s, b, c, channels)[None, :] / area
    for start in range(first, end, BLOCK_P):
        _, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        gradient = tl.load(g + offsets, mask=mask, other=0.0).to(ACC) + more_x
        positive = tl.load(x + offsets, mask=mask, other=0.0) > 0
        gradient = tl.where(positive, gradient, tl.zeros(gradient.shape, ACC))
        tl.store(dr + offsets, gradient, mask=mask)
        gradient += more_s
        if ADDED:
            gradient += tl.load(more + offsets, mask=mask, other=0.0).to(ACC)
        tl.store(ds + offsets, gradient, mask=mask)


def add_relu_pool(
    r: Tensor, s: Tensor, scale: Tensor, shift: Tensor, in_place: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x, in the place of ``r`` if wanted, and GAP(x), GAP(s), each (B, C)."""
    x = r if in_place else torch.empty_like(r)
    return x, *_pooled(r, s, (scale, shift), x, stored=True)


def pool_add_relu(r: Tensor, s: Tensor, *affine: Tensor) -> tuple[Tensor, Tensor]:
    """Return the poolings alone."""
    return _pooled(r, s, affine, r, stored=False)


def _pooled(r: Tensor, s: Tensor, affine, x: Tensor, stored: bool) -> tuple[Tensor, Tensor]:
    grid = Tiling(r)
    sums = grid.partial(r), grid.partial(r)
    forward_kernel[grid](r, s, *grid.vectors(*affine), x, *sums, STORED=stored, **grid.options)
    return tuple(part.sum(0) / grid.area for part in sums)


def add_relu_pool_backward(
    g: Tensor, pooled_x: Tensor, pooled_s: Tensor, more: Tensor | None, x: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients of r and s, where nothing is scaled, from those of x and the poolings.

    ``more`` is another part of the gradient of s.
    """
    grid = Tiling(x)
    dr, ds = torch.empty_like(x), torch.empty_like(x)
    vectors = grid.vectors(pooled_x, pooled_s)
    added = g if more is None else more
    backward_kernel[grid](g, *vectors, added, x, dr, ds, ADDED=more is not None, **grid.options)
    return dr, ds
