"""Describe the outputs of a backbone before it is run: channels and strides."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor, nn

if TYPE_CHECKING:
    from .stage import ResStage


class FeatureInfo(NamedTuple):
    """One output.

    Args:
        module (str): Name of the stage that it comes from.
        channels (int): Its channels.
        stride (int): Pixels of the image from one of its positions to the next.
    """

    module: str
    channels: int
    stride: int


class FeatureInfoMixin:
    """Add ``feature_info``, and the type of what calling the backbone returns, to a ResNet."""

    if TYPE_CHECKING:
        feat_dim: int
        num_stages: int
        out_indices: tuple[int, ...]

        @property
        def stages(self) -> list[ResStage]: ...

        @property
        def stem_layers(self) -> list[nn.Module]: ...

        def __call__(self, x: Tensor) -> tuple[Tensor, ...]: ...

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        """One entry for each output, in their order.

        Example:
            >>> from mmdla import DLAResNet
            >>> [(info.channels, info.stride) for info in DLAResNet(50).feature_info]
            [(256, 4), (512, 8), (1024, 16), (2048, 32)]
        """
        stride = prod(map(_stride, self.stem_layers))
        found = []
        for i, stage in enumerate(self.stages):
            downsample = stage[0].downsample  # there wherever a stage strides
            if isinstance(downsample, nn.Module):
                stride *= _stride(downsample)
            found.append(FeatureInfo(f'layer{i + 1}', stage.out_channels, stride))
        return tuple(found[i] for i in self.out_indices)


def _stride(module: nn.Module) -> int:
    """Return the stride of layers that follow each other; it is the same in both directions."""
    strides = (getattr(layer, 'stride', 1) for layer in module.modules())
    return prod(s[0] if isinstance(s, tuple) else s for s in strides)
