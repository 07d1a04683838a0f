"""KCLA: a weighted mean of all maps so far, across the stages.

The layer attention that the authors of DLA published in 2026. Official implementation:
https://github.com/bgx666/KCLA. The code here is written anew from its equations.
"""

import math
from typing import NamedTuple

import torch
import torch.fx
from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..arguments import check_int, check_rate
from ..layers import build_norm
from .heads import channel_conv, depthwise, in_float32, pool, repeat_heads, split_heads
from .scale import ScaledAttention, ScaledHeads

for name in ('in_float32', 'repeat_heads', 'split_heads'):  # under their names here too
    torch.fx.wrap(name)

HEAD_CHANNELS = 64  # of the release for ImageNet and detection
LARGEST_EXPONENT = 10.0
EPSILON = 0.001


class Mean(NamedTuple):
    """A weighted mean in the making.

    Attributes:
        maps (Tensor): Sum of the weighted maps, shape (B, C, H, W).
        weights (Tensor): Sum of their weights, at least in float32, shape (B, heads).
    """

    maps: Tensor
    weights: Tensor


class KeyedHeads(nn.Module):
    """What weighs a map: ``w = exp(min(|Conv1d(GAP(x))| / c, 10))`` for every head.

    Args:
        channels (int): Channels ``C``.
        head_channels (int): Channels of one head.
        kernel_size (int, optional): Odd width of the channel convolutions.
    """

    def __init__(self, channels: int, head_channels: int, kernel_size: int | None) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.key = channel_conv(channels, kernel_size)
        nn.init.xavier_uniform_(self.key.weight)

    def heads_of(self, conv: nn.Module, y: Tensor) -> Tensor:
        """Convolve a descriptor (B, C) and cut it into heads: (B, heads, width)."""
        return split_heads(in_float32(conv(y.unsqueeze(1)).squeeze(1)), self.head_channels)

    def weigh(self, key_norm: Tensor, constants: Tensor) -> Tensor:
        """Return the weights for norms of keys (B, heads) and constants (heads,)."""
        return (key_norm / constants).clamp(max=LARGEST_EXPONENT).exp()

    def per_channel(self, weight: Tensor) -> Tensor:
        """Repeat a weight of every head for its channels: (B, heads) to (B, C, 1, 1)."""
        return repeat_heads(weight, self.head_channels)[..., None, None]


class Restart(KeyedHeads):
    """Turn the mean so far into its one entry, in the size of this stage.

    Args:
        channels (int): Channels ``C`` of the stage.
        previous_channels (int): Channels of the maps so far.
        stride (int): How much smaller the maps of the stage are.
        head_channels (int): Channels of one head.
        kernel_size (int, optional): Odd width of the channel convolution.
        norm_cfg (dict): Norm layer.
    """

    def __init__(
        self, channels, previous_channels, stride, head_channels, kernel_size, norm_cfg
    ) -> None:
        super().__init__(channels, head_channels, kernel_size)
        self.norm = build_norm(norm_cfg, channels)[1]
        self.resize: nn.Module = nn.Identity()
        if previous_channels != channels or stride != 1:
            groups = channels // head_channels
            if previous_channels % groups:
                raise ValueError(
                    f'head_channels={head_channels} makes {groups} heads of {channels} channels, '
                    f'which must divide the {previous_channels} channels of the stage before'
                )
            self.resize = nn.Conv2d(
                previous_channels, channels, 1, stride=stride, groups=groups, bias=False
            )

    def forward(self, mean: Mean, constants: Tensor, like: Tensor) -> Mean:
        """Return the mean of one entry, for a map ``like`` (B, C, H, W) of this stage."""
        width = mean.maps.shape[1] // mean.weights.shape[1]
        weights = repeat_heads(mean.weights, width)[..., None, None]  # (B, C', 1, 1)
        x = self.norm(self.resize((mean.maps / weights).to(like.dtype)))  # (B, C, H, W)
        key_norm = torch.linalg.vector_norm(self.heads_of(self.key, pool(x)), dim=-1)
        w = self.weigh(key_norm, constants)  # (B, heads)
        return Mean(self.per_channel(w) * x, w)


class GatedMean(ScaledHeads, KeyedHeads):
    """One block's part of :class:`KCLA`; arguments are those of the attention."""

    def __init__(self, channels, head_channels, kernel_size, norm_cfg, drop_path_rate) -> None:
        super().__init__(channels, head_channels, kernel_size)
        heads = channels // head_channels
        self.query = channel_conv(channels, kernel_size)
        self.mix = nn.Linear(heads, heads, bias=False)
        for weight in (self.query.weight, self.mix.weight):
            nn.init.xavier_uniform_(weight)
        self.norm = build_norm(norm_cfg, channels)[1]
        self.value = depthwise(channels)
        rate = check_rate('drop_path_rate', drop_path_rate)
        self.drop_path = DropPath(rate) if rate else nn.Identity()
        self.restart: Restart | None = None
        self.register_buffer('constants', spread_constants(heads))

    def forward(self, x: Tensor, mean: Mean | None) -> tuple[Tensor, Mean]:
        """Return the output of a block (B, C, H, W) with attention, and the mean with its map."""
        if mean is not None and self.restart is not None:
            mean = self.restart(mean, self.constants, x)
        y = pool(x)  # (B, C)
        q, k = self.heads_of(self.query, y), self.heads_of(self.key, y)  # 2 x (B, heads, width)
        key_norm = torch.linalg.vector_norm(k, dim=-1)  # (B, heads)
        w = self.weigh(key_norm, self.constants)  # (B, heads)
        maps = self.per_channel(w) * x  # (B, C, H, W)
        mean = Mean(maps, w) if mean is None else Mean(mean.maps + maps, mean.weights + w)
        value = self.value((mean.maps / self.per_channel(mean.weights + EPSILON)).to(x.dtype))
        # a key of zeros, from a map of zeros, has no direction: 0 / 1 rather than 0 / 0
        similarity = (q * k).sum(-1) / (key_norm + (key_norm == 0))  # (B, heads)
        gate = self.mix(similarity.to(y.dtype)).sigmoid()  # (B, heads)
        out = self.norm(self.per_channel(gate.to(value.dtype)) * value).relu()  # (B, C, H, W)
        out = self.drop_path(out if self.scale is None else self.scale * out)
        return x + out.type_as(x), mean  # under autocast out is in float32


@MODELS.register_module()
class KCLA(ScaledAttention):
    r"""KCLA: the maps of all blocks so far, weighted by the norms of their keys.

    With :math:`q_l, k_l = \mathrm{Conv1d}(\mathrm{GAP}(x_l))` and, for every head,
    :math:`w_l = \exp(\min(|k_l| / c, 10))`,

    .. math::
        S_l &= S_{l-1} + w_l\, x_l, \qquad Z_l = Z_{l-1} + w_l \\
        \alpha_l &= \sigma(M_l\, (q_l k_l / |k_l|)) \\
        x_l &\leftarrow x_l + \mathrm{DropPath}(\mathrm{ReLU}(\mathrm{BN}(
            \alpha_l \odot V(S_l / (Z_l + 0.001)))))

    :math:`S` and :math:`Z` go on from stage to stage. The first block of a stage, and block
    ``restart_block``, first makes one entry of them, :math:`m = \mathrm{BN}(E(S / Z))` with
    :math:`Z = \exp(\min(|\mathrm{Conv1d}(\mathrm{GAP}(m))| / c, 10))` and :math:`S = Z m`; the
    grouped 1x1 convolution :math:`E` brings it to the size of the stage. The constants ``c`` of the
    heads fall from 1 / 0.7 to 0.7.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        head_channels (int, optional): Channels of one head; the release has 16 for CIFAR. Default:
            64, or the largest power of 2 below that divides ``C``.
        kernel_size (int, optional): Odd width of the channel convolutions. Default: from ``C``.
        drop_path_rate (float): Drop path of the attention branch. Default: 0.
        restart_block (int, optional): Block, from 0, that makes one entry of the mean within a
            stage; the release for CIFAR has none. Default: 11.
        previous_channels (int, optional): Channels of the stage before; the backbone gives it.
        stride (int): Stride of the stage; the backbone gives it.
        **kwargs: As :class:`LayerAttention`.

    Raises:
        ValueError: ``head_channels`` does not divide ``channels``, or ``kernel_size`` is even.
    """

    crosses_stages = True

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        head_channels: int | None = None,
        kernel_size: int | None = None,
        drop_path_rate: float = 0.0,
        restart_block: int | None = 11,
        previous_channels: int | None = None,
        stride: int = 1,
        **kwargs,
    ) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        if head_channels is None:
            head_channels = math.gcd(HEAD_CHANNELS, channels)
        elif channels % check_int('head_channels', head_channels):
            raise ValueError(
                f'head_channels must divide the {channels} channels of the stage, '
                f'got {head_channels}'
            )
        if restart_block is not None:
            check_int('restart_block', restart_block)
        self.blocks = nn.ModuleList(
            GatedMean(channels, head_channels, kernel_size, self.norm_cfg, drop_path_rate)
            for _ in range(num_blocks)
        )
        rest = head_channels, kernel_size, self.norm_cfg
        if previous_channels is not None:
            self.blocks[0].restart = Restart(channels, previous_channels, stride, *rest)
        if restart_block is not None and restart_block < num_blocks:
            self.blocks[restart_block].restart = Restart(channels, channels, 1, *rest)

    def attend(self, index, x, shortcut, state):
        return self.blocks[index](x, state)


def spread_constants(heads: int) -> Tensor:
    """Return the ``c`` of every head, log-uniform from 1 / 0.7 to 0.7: (heads,)."""
    return 1 / torch.linspace(math.log(0.7), math.log(1 / 0.7), heads).exp()
