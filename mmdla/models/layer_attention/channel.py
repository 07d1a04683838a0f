"""Channel attention, the baselines that look at one block alone.

SE: "Squeeze-and-Excitation Networks" (CVPR 2018, arXiv:1709.01507);
official implementation: https://github.com/hujie-frank/SENet.
ECA: "ECA-Net: Efficient Channel Attention for Deep Convolutional Neural Networks" (CVPR 2020,
arXiv:1910.03151); official implementation: https://github.com/BangguWu/ECANet.
"""

from torch import Tensor, nn

from ..arguments import check_int
from ..layers import build_norm
from ..register import register_yielding
from .heads import channel_conv, pool
from .interface import LayerAttention


class ChannelAttention(LayerAttention):
    """Scale the residual of block ``l`` by ``sigmoid(blocks[l](GAP(residual)))``."""

    blocks: nn.ModuleList

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        build_norm(self.norm_cfg, self.channels)  # not used, but a wrong one is refused

    def recalibrate(self, index, residual, state):
        scale = self.blocks[index](pool(residual)).sigmoid()  # (B, C)
        return residual * scale[..., None, None], state


@register_yielding
class SE(ChannelAttention):
    r"""Squeeze-and-excitation (CVPR 2018): :math:`r_l \odot \sigma(W_2 \mathrm{ReLU}(W_1 y))`.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        reduction (int): The squeeze has ``C // reduction`` channels. Default: 16.
        **kwargs: As :class:`LayerAttention`.
    """

    def __init__(self, channels: int, num_blocks: int, reduction: int = 16, **kwargs) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        squeezed = channels // check_int('reduction', reduction)
        if squeezed < 1:
            raise ValueError(
                f'reduction must be in 1..{channels} for {channels} channels, got {reduction}'
            )
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, squeezed, bias=False),
                nn.ReLU(),
                nn.Linear(squeezed, channels, bias=False),
            )
            for _ in range(num_blocks)
        )


@register_yielding
class ECA(ChannelAttention):
    r"""Efficient channel attention (CVPR 2020): :math:`r_l \odot \sigma(\mathrm{Conv1d}(y))`.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        kernel_size (int, optional): Odd width of the convolution. Default: from ``C``.
        **kwargs: As :class:`LayerAttention`.
    """

    def __init__(
        self, channels: int, num_blocks: int, kernel_size: int | None = None, **kwargs
    ) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        self.blocks = nn.ModuleList(ChannelConv(channels, kernel_size) for _ in range(num_blocks))


class ChannelConv(nn.Module):
    """A convolution over the channels: (B, C) to (B, C)."""

    def __init__(self, channels: int, kernel_size: int | None) -> None:
        super().__init__()
        self.conv = channel_conv(channels, kernel_size)

    def forward(self, y: Tensor) -> Tensor:
        return self.conv(y.unsqueeze(1)).squeeze(1)
