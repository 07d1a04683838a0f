"""Query, key and value of one block, shared by all layer attentions of the MRLA family."""

import math

import torch
import torch.fx
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from ...ops.backend import at_least_float32
from ...ops.batch_norm import tensor_of
from ..arguments import check_int, check_rate
from ..layers import build_norm


def kernel_size_for(channels: int) -> int:
    """Width of the channel convolution, the odd size next to ``(log2 C + 1) / 2`` (ECA, MRLA)."""
    t = int(abs(math.log2(channels) + 1) / 2)
    return t if t % 2 else t + 1


def pool(x: Tensor) -> Tensor:
    """Return the global average pooling ``GAP``: (B, C, H, W) to (B, C)."""
    return x.mean((2, 3))


class Heads(nn.Module):
    """``q, k = Conv1d(GAP(x))``, ``V = DWConv3x3(x)``, norm and drop path of one block.

    Args:
        channels (int): Channels ``C``.
        head_channels (int): Channels of one head; ``C`` must be divisible by it.
        kernel_size (int, optional): Odd width of the channel convolutions, by default
            :func:`kernel_size_for`.
        norm_cfg (dict): Norm layer of the attention output.
        drop_path_rate (float): Probability that a sample's attention output is dropped.
    """

    def __init__(
        self,
        channels: int,
        head_channels: int,
        kernel_size: int | None,
        norm_cfg: dict,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        check_int('head_channels', head_channels)
        if channels % head_channels:
            raise ValueError(
                f'head_channels must divide the {channels} channels of the stage, '
                f'got {head_channels}'
            )
        self.head_channels = head_channels
        self.query = channel_conv(channels, kernel_size)
        self.key = channel_conv(channels, kernel_size)
        self.o = nn.Identity()  # where hooks see o_l; MMEngine looks for a module before a norm
        # before any Conv2d, so that no tool folds it into a convolution that it does not follow
        self.norm = build_norm(norm_cfg, channels)[1]
        self.value = depthwise(channels)
        rate = check_rate('drop_path_rate', drop_path_rate)
        self.drop_path = DropPath(rate) if rate else nn.Identity()

    def bypassed(self) -> tuple[nn.Module, ...]:
        """Return the modules that fused operations stand for."""
        return self, *self._modules.values()

    def weights(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the weights of query, key and value."""
        return tuple(tensor_of(m, 'weight') for m in (self.query, self.key, self.value))

    def is_as_written(self) -> bool:
        """Return whether nothing was put in the place of the convolutions."""
        plain = type(self.query) is type(self.key) is nn.Conv1d
        return plain and is_plain_conv(self.value)

    def query_key(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key from the descriptor ``y`` (B, C), each (B, C)."""
        y = y.unsqueeze(1)  # (B, 1, C)
        return self.query(y).squeeze(1), self.key(y).squeeze(1)

    def similarity(self, q: Tensor, k: Tensor) -> Tensor:
        """Return ``q_h·k_h / sqrt(width)`` for every head: (..., C), (..., C) to (..., heads).

        At least in float32: products of float16 overflow at 256·256, and the softmax or sigmoid
        that follows would be NaN. Those are to be rounded, not this.
        """
        qk = split_heads(in_float32(q) * in_float32(k), self.head_channels)  # (..., heads, width)
        return qk.sum(-1) / math.sqrt(self.head_channels)

    def per_channel(self, weight: Tensor) -> Tensor:
        """Repeat a weight of every head for its channels: (..., heads) to (..., C)."""
        return repeat_heads(weight, self.head_channels)


@torch.fx.wrap  # torch.fx sees one call, not a choice that depends on the tensor
def in_float32(t: Tensor) -> Tensor:
    """Return a tensor in float32 at least."""
    return t.to(at_least_float32(t.dtype))


@torch.fx.wrap
def split_heads(t: Tensor, width: int) -> Tensor:
    """(..., C) to (..., heads, width)."""
    return t.reshape(*t.shape[:-1], t.shape[-1] // width, width)  # ONNX has no unflatten before 13


@torch.fx.wrap
def repeat_heads(weight: Tensor, width: int) -> Tensor:
    """(..., heads) to (..., C); not by repeat_interleave, which ONNX exports with fixed sizes."""
    return weight.unsqueeze(-1).expand(*weight.shape, width).flatten(-2)


def channel_conv(channels: int, kernel_size: int | None = None) -> nn.Conv1d:
    """Convolution over the channels of a descriptor (B, 1, C), without bias.

    Raises:
        ValueError: ``kernel_size`` is even.
    """
    kernel_size = kernel_size_for(channels) if kernel_size is None else kernel_size
    if check_int('kernel_size', kernel_size) % 2 == 0:
        raise ValueError(f'kernel_size must be odd, got {kernel_size}')
    return nn.Conv1d(1, 1, kernel_size, padding=kernel_size // 2, bias=False)


def depthwise(channels: int) -> nn.Conv2d:
    """Depthwise 3x3 convolution without bias."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def is_plain_conv(conv: nn.Module) -> bool:
    """Return whether a module is :func:`depthwise` still, not quantized or parametrized."""
    return (
        type(conv) is nn.Conv2d
        and conv.bias is None
        and conv.padding_mode == 'zeros'
        and conv.groups == conv.in_channels == conv.out_channels
        and conv.kernel_size == (3, 3)
    )
