"""The ResNets for CIFAR, of 20 to 110 layers in three stages, with layer attention.

Section 4.2 of "Deep Residual Learning for Image Recognition" (CVPR 2016, arXiv:1512.03385), in the
form of DLA's official implementation: https://github.com/tunantu/Dynamic-Layer-Attention.
"""

from collections.abc import Sequence

from mmengine.registry import MODELS
from torch import nn

from ..arguments import check_bool, check_choice, check_int
from .blocks import BasicBlock, Bottleneck
from .resnet import DLAResNet


@MODELS.register_module()
class DLAResNet_CIFAR(DLAResNet):  # noqa: N801 - MMPretrain's ResNet_CIFAR is named like this
    """CIFAR ResNet (He et al., 2016, section 4.2) whose blocks attend to the earlier ones.

    A 3x3 stem of 16 channels without pooling and three stages of 16, 32 and 64 (with
    bottlenecks 64, 128 and 256) channels, for images of 32x32.

    Args:
        depth (int): ``9n + 2`` with bottlenecks, ``6n + 2`` with basic blocks, for ``n`` blocks
            in each stage.
        block (str): ``'bottleneck'`` or ``'basic'``. Default: ``'bottleneck'``.
        base_channels (int): Default: 16.
        strides (Sequence[int]): Default: (1, 2, 2).
        dilations (Sequence[int]): Default: (1, 1, 1).
        **kwargs: As :class:`DLAResNet`, but for ``deep_stem``.

    Raises:
        ValueError: ``depth`` does not suit ``block``.

    Example:
        >>> import torch
        >>> from mmdla import DLAResNet_CIFAR
        >>> model = DLAResNet_CIFAR(20, layer_attention=dict(type='DLABase', reduction=4))
        >>> [tuple(out.shape) for out in model.eval()(torch.rand(1, 3, 32, 32))]
        [(1, 64, 32, 32), (1, 128, 16, 16), (1, 256, 8, 8)]
    """

    blocks_by_name = {'basic': (BasicBlock, 6), 'bottleneck': (Bottleneck, 9)}

    def __init__(
        self,
        depth: int,
        block: str = 'bottleneck',
        base_channels: int = 16,
        num_stages: int = 3,
        stem_channels: int | None = None,
        strides: Sequence[int] = (1, 2, 2),
        dilations: Sequence[int] = (1, 1, 1),
        stage_with_dcn: Sequence[bool] = (False, False, False),
        deep_stem: bool = False,
        **kwargs,
    ) -> None:
        self._block_name = check_choice('block', block, self.blocks_by_name)
        if check_bool('deep_stem', deep_stem):
            raise ValueError('deep_stem must be False for CIFAR, got True')
        super().__init__(
            depth,
            base_channels=base_channels,
            num_stages=num_stages,
            stem_channels=base_channels if stem_channels is None else stem_channels,
            strides=strides,
            dilations=dilations,
            stage_with_dcn=stage_with_dcn,
            **kwargs,
        )

    def _architecture(self, depth):
        block, layers = self.blocks_by_name[self._block_name]
        check_int('depth', depth, layers + 2)
        if (depth - 2) % layers:
            raise ValueError(
                f'depth must be {layers}n + 2 for block={self._block_name!r}, got {depth}'
            )
        return block, ((depth - 2) // layers,) * 3

    def _make_stem(self, in_channels: int, stem_channels: int) -> None:
        self._make_plain_stem(in_channels, stem_channels, kernel_size=3, stride=1)
        self.maxpool = nn.Identity()
