"""Two depthwise 3x3 correlations with a kernel for every sample and channel, and their gradients.

``o = kx * x + ks * s``: x, s, o (B, C, H, W); kx, ks (B, C, 9); zero padding.
"""

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
def inside_map(tap, p, height, width):
    """Whether tap 0 to 8 of a 3x3 kernel at positions [BLOCK_P] sees a place of the map."""
    h = p // width + tap // 3 - 1
    w = p % width + tap % 3 - 1
    return (h >= 0) & (h < height) & (w >= 0) & (w < width)


@triton.jit
def shifted(source, tap, p, offsets, mask, height, width, step, ACC: tl.constexpr):
    """A tile of a map as tap 0 to 8 of a 3x3 kernel sees it; zero outside of the map."""
    shift = ((tap // 3 - 1) * width + tap % 3 - 1) * step
    seen = mask & inside_map(tap, p, height, width)[:, None]
    return tl.load(source + offsets + shift, mask=seen, other=0.0).to(ACC)


@triton.jit
def correlated(
    source, kernels, b, c, p, offsets, mask, channels, height, width,
    FLIPPED: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """A tile of a map correlated with its kernels, or with those turned by half a turn."""
    step = channels if LAST else 1
    out = tl.zeros(mask.shape, ACC)
    for tap in tl.static_range(9):
        entry = 8 - tap if FLIPPED else tap
        weight = tl.load(kernels + (b * channels + c) * 9 + entry, mask=c < channels, other=0.0)
        seen = shifted(source, tap, p, offsets, mask, height, width, step, ACC)
        out += weight[None, :] * seen
    return out


@triton.jit
def o_tile(
    x, s, kx, ks, b, c, p, offsets, mask, channels, height, width,
    LAST: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    of_x = correlated(
        x, kx, b, c, p, offsets, mask, channels, height, width, False, LAST, ACC
    )  # fmt: skip
    return of_x + correlated(
        s, ks, b, c, p, offsets, mask, channels, height, width, False, LAST, ACC
    )


@tuned()
@triton.jit
def forward_kernel(
    x, s, kx, ks, bias, out, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    shift = vector(bias, b, c, channels)
    for start in range(first, end, BLOCK_P):
        p, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        o = o_tile(x, s, kx, ks, b, c, p, offsets, mask, channels, height, width, LAST, ACC)
        tl.store(out + offsets, o + shift[None, :], mask=mask)


@tuned()
@triton.jit
def add_relu_kernel(
    r, s, scale, shift, kx, ks, bias, out, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    step = channels if LAST else 1
    factor = vector(scale, b, c, channels)[None, :]
    more = vector(shift, b, c, channels)[None, :]
    constant = vector(bias, b, c, channels)[None, :]
    row = (b * channels + c) * 9
    for start in range(first, end, BLOCK_P):
        p, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        o = tl.zeros(mask.shape, ACC) + constant
        for tap in tl.static_range(9):
            shortcut = shifted(s, tap, p, offsets, mask, height, width, step, ACC)
            x = factor * shifted(r, tap, p, offsets, mask, height, width, step, ACC) + more
            x += shortcut
            outside = inside_map(tap, p, height, width)[:, None] == 0
            x = tl.where((x < 0) | outside, tl.zeros(x.shape, ACC), x)  # NaN stays
            o += tl.load(kx + row + tap, mask=c < channels, other=0.0)[None, :] * x
            o += tl.load(ks + row + tap, mask=c < channels, other=0.0)[None, :] * shortcut
        tl.store(out + offsets, o, mask=mask)


@tuned()
@triton.jit
def moments_kernel(
    x, s, kx, ks, means, m2s, channels, height, width,
    SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    count = tl.zeros((1,), ACC)
    mean = tl.zeros((BLOCK_C,), ACC)
    m2 = tl.zeros((BLOCK_C,), ACC)
    for start in range(first, end, BLOCK_P):
        p, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        o = o_tile(x, s, kx, ks, b, c, p, offsets, mask, channels, height, width, LAST, ACC)
        count, mean, m2 = add_moments(count, mean, m2, o, mask, ACC)
    store_partial(means, b, c, channels, mean)
    store_partial(m2s, b, c, channels, m2)


@tuned()
@triton.jit
def correlate_kernel(
    g, x, s, kx, ks, alpha, beta, gamma, u_map, with_x, with_s, sums, channels, height, width,
    NORMED: tl.constexpr, SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Correlations and sum of ``u``, which is ``g`` or, ``NORMED``, ``alpha g + beta o + gamma``.

    The latter is written to ``u_map``.
    """
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    step = channels if LAST else 1
    taps = tl.arange(0, 16)[:, None]
    of_x = tl.zeros((16, BLOCK_C), ACC)
    of_s = tl.zeros((16, BLOCK_C), ACC)
    total = tl.zeros((BLOCK_C,), ACC)
    for start in range(first, end, BLOCK_P):
        p, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        u = tl.load(g + offsets, mask=mask, other=0.0).to(ACC)
        if NORMED:
            o = o_tile(x, s, kx, ks, b, c, p, offsets, mask, channels, height, width, LAST, ACC)
            u = vector(alpha, b, c, channels)[None, :] * u
            u += vector(beta, b, c, channels)[None, :] * o
            u += vector(gamma, b, c, channels)[None, :]
            u = tl.where(mask, u, tl.zeros(u.shape, ACC))
            tl.store(u_map + offsets, u, mask=mask)
        total += tl.sum(u, 0)
        for tap in tl.static_range(9):
            seen = shifted(x, tap, p, offsets, mask, height, width, step, ACC)
            of_x += tl.where(taps == tap, tl.sum(u * seen, 0)[None, :], 0.0)
            seen = shifted(s, tap, p, offsets, mask, height, width, step, ACC)
            of_s += tl.where(taps == tap, tl.sum(u * seen, 0)[None, :], 0.0)
    store_partial(sums, b, c, channels, total)
    samples = tl.num_programs(0) // tl.cdiv(channels, BLOCK_C)
    row = (tl.program_id(1).to(tl.int64) * samples + b) * channels
    place = (row + c[None, :]) * 9 + taps
    valid = (taps < 9) & (c < channels)[None, :]
    tl.store(with_x + place, of_x, mask=valid)
    tl.store(with_s + place, of_s, mask=valid)


@tuned()
@triton.jit
def transposed_kernel(
    u, g, kx, ks, dx, ds, channels, height, width,
    RESIDUAL: tl.constexpr, SPAN: tl.constexpr, LAST: tl.constexpr, ACC: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gradients of the maps from that of ``o``; ``RESIDUAL``: that of ``x`` plus ``g``."""
    b, c = sample_and_channels(channels, BLOCK_C)
    first, end = span(height, width, SPAN)
    for start in range(first, end, BLOCK_P):
        p, offsets, mask = tile(b, c, start, channels, height, width, BLOCK_P, LAST)
        of_x = correlated(
            u, kx, b, c, p, offsets, mask, channels, height, width, True, LAST, ACC
        )  # fmt: skip
        if RESIDUAL:
            of_x += tl.load(g + offsets, mask=mask, other=0.0).to(ACC)
        tl.store(dx + offsets, of_x, mask=mask)
        of_s = correlated(
            u, ks, b, c, p, offsets, mask, channels, height, width, True, LAST, ACC
        )  # fmt: skip
        tl.store(ds + offsets, of_s, mask=mask)


def dual_dwconv(x: Tensor, s: Tensor, kx: Tensor, ks: Tensor, bias: Tensor) -> Tensor:
    """``o + bias``, with a bias (B, C)."""
    grid = Tiling(x)
    out = torch.empty_like(x)
    forward_kernel[grid](x, s, *grid.vectors(kx, ks, bias), out, **grid.options)
    return out


def dual_dwconv_of_add_relu(r: Tensor, s: Tensor, *vectors: Tensor | bool) -> Tensor:
    """The same for ``x = ReLU(scale * r + shift + s)``, which is not formed.

    Args:
        r (Tensor): (B, C, H, W).
        s (Tensor): (B, C, H, W).
        vectors (Tensor): Scale, shift (B, C), kx, ks (B, C, 9), bias (B, C); and whether the
            result takes the place of ``r``: by a copy here, since programs read each other's rows.
    """
    *vectors, in_place = vectors
    grid = Tiling(r)
    out = torch.empty_like(r)
    add_relu_kernel[grid](r, s, *grid.vectors(*vectors), out, **grid.options)
    return r.copy_(out) if in_place else out


def dual_dwconv_moments(x: Tensor, s: Tensor, kx: Tensor, ks: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of ``o`` in every plane and the sum of its squared deviations from it, each (B, C)."""
    grid = Tiling(x)
    means, m2 = grid.partial(x), grid.partial(x)
    moments_kernel[grid](x, s, *grid.vectors(kx, ks), means, m2, **grid.options)
    return grid.moments(means, m2)


def dual_dwconv_correlate(g: Tensor, x: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Correlations of ``g`` with the shifted maps, 2 x (B, C, 9), and its sum, (B, C)."""
    return _correlate(g, x, s, [x] * 5, x, normed=False)


def dual_dwconv_backward(
    g: Tensor, x: Tensor, s: Tensor, kx: Tensor, ks: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of x, s, kx, ks and the bias from that of ``o``."""
    grid = Tiling(x)
    maps = _transposed(g, g, grid.vectors(kx, ks), residual=False)
    return *maps, *dual_dwconv_correlate(g, x, s)


def dual_dwconv_backward_normed(
    g: Tensor, x: Tensor, s: Tensor, kx: Tensor, ks: Tensor, *affine: Tensor
) -> tuple[Tensor, ...]:
    """The same where ``alpha g + beta o + gamma`` arrives at ``o``, and ``g`` besides at x.

    The three factors are (B, C).
    """
    grid = Tiling(x)
    u = torch.empty_like(x)
    vectors = grid.vectors(kx, ks, *affine)
    sums = _correlate(g, x, s, vectors, u, normed=True)
    return *_transposed(u, g, vectors[:2], residual=True), *sums


def _correlate(g, x, s, vectors, u, normed: bool) -> tuple[Tensor, Tensor, Tensor]:
    grid = Tiling(x)
    with_x, with_s, sums = grid.partial(x, 9), grid.partial(x, 9), grid.partial(x)
    correlate_kernel[grid](
        g, x, s, *vectors, u, with_x, with_s, sums, NORMED=normed, **grid.options
    )
    return with_x.sum(0), with_s.sum(0), sums.sum(0)


def _transposed(u, g, kernels, residual: bool) -> tuple[Tensor, Tensor]:
    grid = Tiling(u)
    dx, ds = torch.empty_like(u), torch.empty_like(u)
    transposed_kernel[grid](u, g, *kernels, dx, ds, RESIDUAL=residual, **grid.options)
    return dx, ds
