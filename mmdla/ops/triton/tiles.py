"""How kernels go over maps: tiles of ``BLOCK_P`` positions and ``BLOCK_C`` channels of a sample.

A program has one block of channels and a span of positions, which it goes over tile by tile; sums
over the positions leave it as one partial sum for the span.
"""

import os
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
SPAN = {False: 4096, True: 256}  # positions of a program: NCHW, channels_last
NCHW = [(256, 1, 2), (512, 1, 4), (1024, 1, 4), (2048, 1, 8)]  # BLOCK_P, BLOCK_C, warps
# the convolutions keep 18 numbers a channel: from 8 positions on they run out of registers
CHANNELS_LAST = [(2, 64, 4), (4, 64, 4), (8, 64, 4), (16, 64, 4), (32, 64, 8)]


def tuned(*in_place: str) -> Callable:
    """Choose the tile by measurement, for every number of channels, layout and dtype.

    Args:
        in_place (str): Names of the arguments that the kernel overwrites.
    """
    shapes = [(256, 32, 1)] if INTERPRETED else NCHW + CHANNELS_LAST
    configs = [triton.Config(dict(BLOCK_P=p, BLOCK_C=c), num_warps=warps) for p, c, warps in shapes]

    def of_layout(configs, arguments, **options):
        last = {**arguments, **options}['LAST']
        return [config for config in configs if (config.kwargs['BLOCK_C'] > 1) == last]

    return triton.autotune(
        configs,
        key=['channels', 'LAST'],
        restore_value=list(in_place),
        prune_configs_by=dict(early_config_prune=of_layout),
    )


class Tiling:
    """The programs for maps like ``x`` (B, C, H, W), and what every kernel is told of them."""

    def __init__(self, x: Tensor) -> None:
        self.batch, self.channels, self.height, self.width = x.shape
        self.last = not x.is_contiguous()
        self.area = self.height * self.width
        self.span = SPAN[self.last]
        self.splits = triton.cdiv(self.area, self.span)
        double = x.dtype == torch.float64
        self.dtype = torch.float64 if double else torch.float32
        self.options = dict(
            channels=self.channels,
            height=self.height,
            width=self.width,
            SPAN=self.span,
            LAST=self.last,
            ACC=tl.float64 if double else tl.float32,
        )

    def __call__(self, meta: dict) -> tuple[int, int]:
        return self.batch * triton.cdiv(self.channels, meta['BLOCK_C']), self.splits

    def vectors(self, *vectors: Tensor) -> list[Tensor]:
        """As the kernels read them: contiguous, float32 at least."""
        return [v.to(self.dtype).contiguous() for v in vectors]

    def partial(self, like: Tensor, *rest: int) -> Tensor:
        """Room for the partial sums: (splits, B, C, *rest)."""
        size = (self.splits, self.batch, self.channels, *rest)
        return torch.empty(size, dtype=self.dtype, device=like.device)

    def moments(self, means: Tensor, m2: Tensor) -> tuple[Tensor, Tensor]:
        """Those of whole planes (B, C) from those of the spans (splits, B, C)."""
        first = torch.arange(self.splits, device=means.device) * self.span
        counts = (self.area - first).clamp(max=self.span).to(means).view(-1, 1, 1)
        mean = (counts * means).sum(0) / self.area
        return mean, (m2 + counts * (means - mean).square()).sum(0)


@triton.jit
def sample_and_channels(channels, BLOCK_C: tl.constexpr):
    """Sample of this program and its channels [BLOCK_C]."""
    blocks = tl.cdiv(channels, BLOCK_C)
    program = tl.program_id(0)
    c = (program % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
    return (program // blocks).to(tl.int64), c


@triton.jit
def span(height, width, SPAN: tl.constexpr):
    """First position of this program's span, and the one behind its last."""
    start = tl.program_id(1) * SPAN
    return start, tl.minimum(start + SPAN, height * width)


@triton.jit
def tile(
    b, c, start, channels, height, width,
    BLOCK_P: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Positions [BLOCK_P] from ``start`` on; offsets and mask [BLOCK_P, BLOCK_C] in a map."""
    p = start + tl.arange(0, BLOCK_P)
    area = height * width
    if LAST:
        offsets = (b * area + p[:, None]) * channels + c[None, :]
    else:
        offsets = (b * channels + c[None, :]) * area + p[:, None]
    return p, offsets, (p < area)[:, None] & (c < channels)[None, :]


@triton.jit
def vector(pointer, b, c, channels):
    """Entries [BLOCK_C] of a vector (B, C)."""
    return tl.load(pointer + b * channels + c, mask=c < channels, other=0.0)


@triton.jit
def store_partial(pointer, b, c, channels, value):
    """Store entries [BLOCK_C] of this program's part of (splits, B, C)."""
    samples = tl.num_programs(0) // tl.cdiv(channels, c.shape[0])
    row = tl.program_id(1).to(tl.int64) * samples + b
    tl.store(pointer + row * channels + c, value, mask=c < channels)


@triton.jit
def add_moments(count, mean, m2, values, mask, ACC: tl.constexpr):
    """Count, mean and sum of squared deviations [BLOCK_C], with a tile of values more."""
    zero = tl.zeros(values.shape, ACC)
    n = tl.max(tl.sum(mask.to(ACC), 0), 0)  # of this tile; channels outside count none
    own_mean = tl.sum(tl.where(mask, values, zero), 0) / n
    deviation = tl.where(mask, values - own_mean[None, :], zero)
    delta = own_mean - mean
    total = count + n
    m2 += tl.sum(deviation * deviation, 0) + delta * delta * (count * n / total)
    return total, mean + delta * (n / total), m2
