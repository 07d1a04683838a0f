"""ResNet with layer attention: the backbone.

ResNet: "Deep Residual Learning for Image Recognition" (CVPR 2016, arXiv:1512.03385), with the
arguments of MMDetection's and MMPretrain's. Layer attention: "Strengthening Layer Interaction via
Dynamic Layer Attention" (IJCAI 2024, arXiv:2406.13392); official implementation:
https://github.com/tunantu/Dynamic-Layer-Attention.
"""

import warnings
from collections.abc import Sequence

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdla.checkpoint import load_backbone

from ..arguments import (
    check_bool,
    check_cfg,
    check_choice,
    check_int,
    check_sequence,
    errors_named,
)
from ..layer_attention import build_layer_attention
from ..layers import build_conv, build_norm, check_norm_cfg
from . import options
from .blocks import BasicBlock, Bottleneck, apply_relu
from .depths import layer_depth
from .feature_info import FeatureInfoMixin
from .host import follow_host
from .stage import ResStage


@MODELS.register_module()
class DLAResNet(FeatureInfoMixin, BaseModule):
    """ResNet whose blocks attend to the earlier blocks of their stage.

    Takes the arguments of MMDetection's and MMPretrain's ``ResNet``, ``ResNeXt`` and
    ``ResNetV1d`` with their meaning, so that a config changes in one word, and names its
    parameters as torchvision does, so that ResNet checkpoints fit. With
    ``layer_attention=None`` it computes what those classes compute.

    An argument that is left out has the default of the ``ResNet`` that the library whose config is
    being built (MMEngine's default scope) has under that name.

    Args:
        depth (int): 18, 34 (basic blocks), 50, 101 or 152 (bottlenecks).
        in_channels (int): Channels of the image. Default: 3.
        stem_channels (int, optional): Channels of the stem. Default: ``base_channels``
            (MMPretrain: 64).
        base_channels (int): Width of the first stage's 3x3 convolutions. Default: 64.
        expansion (int, optional): Output channels of a block over its width. Default: 1 for
            basic blocks, 4 for bottlenecks.
        num_stages (int): Stages, 1 to 4. Default: 4.
        strides (Sequence[int]): Stride of each stage. Default: (1, 2, 2, 2).
        dilations (Sequence[int]): Dilation of each stage. Default: (1, 1, 1, 1).
        out_indices (Sequence[int], optional): Stages to return. Default: all (MMPretrain: the
            last).
        style (str): Where a bottleneck strides: ``'pytorch'`` in its 3x3, ``'caffe'`` in its
            first 1x1 convolution. Basic blocks stride in their first convolution under both.
        deep_stem (bool): Three 3x3 convolutions for the 7x7 one (V1d). Default: False.
        avg_down (bool): Average pooling for the stride of the shortcut (V1d). Default: False.
        groups (int): Groups of the 3x3 convolutions (ResNeXt, bottlenecks only). Default: 1.
        base_width (int): Width of a group for 64 base channels (ResNeXt). Default: 4.
        width_per_group (int, optional): MMPretrain's name of ``base_width``.
        frozen_stages (int): Freeze the stem (from 0) and that many stages. Default: -1.
        freeze_attention (bool): Freeze the attention of the frozen stages as well. It pays when
            trained attention weights are loaded; random ones must learn. Default: False.
        conv_cfg (dict, optional): Convolutions of stem and blocks.
        norm_cfg (dict): Norm layers, also of the attention, which learn there even with
            ``requires_grad=False``. Default: BN.
        norm_eval (bool, optional): Keep batch norm in eval mode while training. Default: False
            (MMDetection: True).
        dcn (dict, optional): Deformable convolution for the 3x3 ones of bottlenecks.
        stage_with_dcn (Sequence[bool]): Stages that ``dcn`` is for.
        plugins (list[dict], optional): Plugin layers in bottlenecks, as in MMDetection.
        multi_grid (Sequence[int], optional): Dilation of every block of the last stage, in place
            of its ``dilations`` (MMSegmentation).
        contract_dilation (bool): Halve the dilation of a stage's first block (MMSegmentation).
            Default: False.
        with_cp (bool): Gradient checkpointing: recompute the blocks in the backward pass.
        zero_init_residual (bool): Zero the last norm of each block at initialization, unless
            weights are loaded. Default: True.
        drop_path_rate (float): Stochastic depth of the residual branches, growing linearly over
            the blocks. The attention has its own ``drop_path_rate``. Default: 0.
        layer_attention (dict, optional): Config of the :class:`LayerAttention`, e.g.
            ``dict(type='DLALight', reduction=16)``; None for a plain ResNet.
            Default: ``dict(type='DLALight')``.
        zero_init_attention (bool): Let the attention start as the identity, so that the network
            starts as the ResNet whose weights it loads. For attentions that add to the block.
            Default: False.
        pretrained (str, optional): Checkpoint; short for ``init_cfg`` with ``Pretrained``.
        init_cfg (dict | list[dict], optional): Initialization config. ``Pretrained`` accepts
            ResNet checkpoints and those of this class, reports what it loaded and refuses
            what does not fit (:func:`mmdla.checkpoint.load_backbone`).

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: An argument has a value that is not allowed.

    Example:
        >>> import torch
        >>> from mmdla import DLAResNet
        >>> model = DLAResNet(depth=50, layer_attention=dict(type='DLALight', reduction=16))
        >>> for level in model.eval()(torch.rand(1, 3, 64, 64)):
        ...     print(tuple(level.shape))
        (1, 256, 16, 16)
        (1, 512, 8, 8)
        (1, 1024, 4, 4)
        (1, 2048, 2, 2)
    """

    arch_settings = {
        18: (BasicBlock, (2, 2, 2, 2)),
        34: (BasicBlock, (3, 4, 6, 3)),
        50: (Bottleneck, (3, 4, 6, 3)),
        101: (Bottleneck, (3, 4, 23, 3)),
        152: (Bottleneck, (3, 8, 36, 3)),
    }

    host_name = 'ResNet'  # of the class whose defaults are followed

    @follow_host
    def __init__(
        self,
        depth: int,
        in_channels: int = 3,
        stem_channels: int | None = None,
        base_channels: int = 64,
        expansion: int | None = None,
        num_stages: int = 4,
        strides: Sequence[int] = (1, 2, 2, 2),
        dilations: Sequence[int] = (1, 1, 1, 1),
        out_indices: Sequence[int] | None = None,
        style: str = 'pytorch',
        deep_stem: bool = False,
        avg_down: bool = False,
        groups: int = 1,
        base_width: int = 4,
        width_per_group: int | None = None,
        frozen_stages: int = -1,
        freeze_attention: bool = False,
        conv_cfg: dict | None = None,
        norm_cfg: dict | None = None,
        norm_eval: bool | None = None,
        dcn: dict | None = None,
        stage_with_dcn: Sequence[bool] = (False, False, False, False),
        plugins: Sequence[dict] | None = None,
        multi_grid: Sequence[int] | None = None,
        contract_dilation: bool = False,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        drop_path_rate: float = 0.0,
        layer_attention: dict | None = dict(type='DLALight'),  # noqa: B006 - never changed
        zero_init_attention: bool = False,
        pretrained: str | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        others, self.pretrained_cfg = options.split_init_cfg(init_cfg, pretrained)
        super().__init__(others)
        self.depth = depth
        self.block, stage_blocks = self._architecture(depth)
        self.num_stages = check_int('num_stages', num_stages, 1, len(stage_blocks))
        num_stages = self.num_stages
        self.stage_blocks = stage_blocks[:num_stages]
        self.res_layers = [f'layer{i + 1}' for i in range(num_stages)]
        self.out_indices = options.check_out_indices(out_indices, num_stages)
        self.frozen_stages = check_int('frozen_stages', frozen_stages, -1, num_stages)
        self.freeze_attention = check_bool('freeze_attention', freeze_attention)
        self.norm_eval = check_bool('norm_eval', False if norm_eval is None else norm_eval)
        self.zero_init_residual = check_bool('zero_init_residual', zero_init_residual)
        self.zero_init_attention = check_bool('zero_init_attention', zero_init_attention)
        self.conv_cfg = check_cfg('conv_cfg', conv_cfg, optional=True)
        self.norm_cfg = check_norm_cfg(norm_cfg)

        self.deep_stem = check_bool('deep_stem', deep_stem)
        self.base_channels = base_channels = check_int('base_channels', base_channels)
        stem_channels = base_channels if stem_channels is None else stem_channels
        stem_channels = options.check_stem_channels(stem_channels, self.deep_stem)
        self.stem_channels = stem_channels
        self._make_stem(check_int('in_channels', in_channels), stem_channels)

        self.avg_down = check_bool('avg_down', avg_down)
        expansion = check_int('expansion', self.block.expansion if expansion is None else expansion)
        self.strides = strides = check_sequence('strides', strides, num_stages)
        self.dilations = dilations = check_sequence('dilations', dilations, num_stages)
        self.multi_grid = options.check_multi_grid(multi_grid, self.stage_blocks[-1])
        self.contract_dilation = check_bool('contract_dilation', contract_dilation)
        drop_path_rates = options.spread_drop_path(drop_path_rate, stage_blocks)
        dcns = options.check_dcn(dcn, stage_with_dcn, self.block, num_stages)
        stage_plugins = options.check_plugins(plugins, self.block, num_stages)
        self.style = style = check_choice('style', style, ('pytorch', 'caffe'))
        self.with_cp = with_cp = check_bool('with_cp', with_cp)
        groups, base_width = check_int('groups', groups), check_int('base_width', base_width)
        if width_per_group is not None:
            base_width = check_int('width_per_group', width_per_group)
        channels, previous = stem_channels, None
        for i, num_blocks in enumerate(self.stage_blocks):
            planes = base_channels * 2**i
            width = options.block_width(self.block, planes, base_channels, groups, base_width)
            grid = self.multi_grid if i == num_stages - 1 else None
            grid = options.block_dilations(dilations[i], num_blocks, self.contract_dilation, grid)
            block_cfg = dict(mid_channels=width)
            if self.block is Bottleneck:
                block_cfg.update(style=style, groups=groups, dcn=dcns[i], plugins=stage_plugins[i])
            blocks = self._make_blocks(
                channels, planes * expansion, strides[i], grid, drop_path_rates[i], block_cfg
            )
            channels = planes * expansion
            attention = build_layer_attention(
                layer_attention,
                channels,
                num_blocks,
                self.norm_cfg,
                previous_channels=previous,
                stride=strides[i],
                last=i == num_stages - 1,
                first_convs=[block.conv1 for block in blocks],
            )
            previous = channels
            self.add_module(f'layer{i + 1}', ResStage(blocks, attention, with_cp))
        self.feat_dim = self.inplanes = self.stages[-1].out_channels
        self._start_attention()
        self._freeze_stages()

    def _architecture(self, depth: int) -> tuple[type, tuple[int, ...]]:
        """Class of the blocks, and how many there are in each stage."""
        return self.arch_settings[check_choice('depth', depth, self.arch_settings)]

    @property
    def norm1(self) -> nn.Module:
        """Norm layer of the stem, as in the host; there is none of that name in a deep one."""
        return getattr(self, self.norm1_name)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Depth of a parameter for MMPretrain's layer-wise learning rates.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): Prefix of the backbone in it. Default: none.

        Returns:
            tuple[int, int]: Depth from 0, the stem, and how many depths there are.
        """
        return layer_depth(param_name, prefix, self.stage_blocks)

    @property
    def stages(self) -> list[ResStage]:
        """The stages in order."""
        return [getattr(self, f'layer{i + 1}') for i in range(self.num_stages)]

    @property
    def stem_layers(self) -> list[nn.Module]:
        """What the image passes through before the stages, in order."""
        names = ('stem',) if self.deep_stem else ('conv1', self.norm1_name, 'relu')
        return [getattr(self, name) for name in (*names, 'maxpool')]

    def _make_stem(self, in_channels: int, stem_channels: int) -> None:
        if self.deep_stem:
            half = stem_channels // 2
            self.stem = nn.Sequential(
                *self._conv_norm_relu(in_channels, half, 3, stride=2),
                *self._conv_norm_relu(half, half, 3, stride=1),
                *self._conv_norm_relu(half, stem_channels, 3, stride=1),
            )
        else:
            self._make_plain_stem(in_channels, stem_channels, kernel_size=7, stride=2)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

    def _make_plain_stem(self, in_channels, stem_channels, kernel_size, stride) -> None:
        self.norm1_name = build_norm(self.norm_cfg, stem_channels, postfix=1)[0]
        layers = self._conv_norm_relu(in_channels, stem_channels, kernel_size, stride)
        for name, layer in zip(('conv1', self.norm1_name, 'relu'), layers, strict=True):
            self.add_module(name, layer)

    def _conv_norm_relu(self, in_channels, out_channels, kernel_size, stride) -> list[nn.Module]:
        conv = build_conv(
            self.conv_cfg,
            in_channels,
            out_channels,
            kernel_size=kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            bias=False,
        )
        norm = build_norm(self.norm_cfg, out_channels)[1]
        return [conv, norm, nn.ReLU()]

    def _make_blocks(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        dilations: Sequence[int],
        drop_path_rates: list[float],
        block_cfg: dict,
    ) -> list[nn.Module]:
        block_cfg.update(conv_cfg=self.conv_cfg, norm_cfg=self.norm_cfg)
        downsample = None
        if stride != 1 or in_channels != out_channels:
            downsample = self._make_downsample(in_channels, out_channels, stride)
        blocks = []
        for n, rate in enumerate(drop_path_rates):
            blocks.append(
                self.block(
                    in_channels=in_channels if n == 0 else out_channels,
                    out_channels=out_channels,
                    stride=stride if n == 0 else 1,
                    dilation=dilations[n],
                    downsample=downsample if n == 0 else None,
                    drop_path_rate=rate,
                    **block_cfg,
                )
            )
        return blocks

    def _make_downsample(self, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        if self.avg_down:
            # also for stride 1, so that the names are MMDetection's
            layers.append(nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False))
            stride = 1
        layers.append(
            build_conv(
                self.conv_cfg, in_channels, out_channels, kernel_size=1, stride=stride, bias=False
            )
        )
        layers.append(build_norm(self.norm_cfg, out_channels)[1])
        return nn.Sequential(*layers)

    def init_weights(self) -> None:
        """Initialize, and load what ``init_cfg`` or ``pretrained`` names.

        Raises:
            mmdla.checkpoint.CheckpointError: The checkpoint cannot be read or does not fit.
        """
        if self.is_init:
            return super().init_weights()  # warns
        with errors_named('init_cfg'):
            super().init_weights()
        self._start_attention()
        self._warn_if_random_stays()
        if self.pretrained_cfg is not None:
            load_backbone(self, **{k: v for k, v in self.pretrained_cfg.items() if k != 'type'})
        elif self.zero_init_residual:
            for stage in self.stages:
                for block in stage:
                    block.zero_init_last_norm()

    def _warn_if_random_stays(self) -> None:
        frozen = self.freeze_attention and self.frozen_stages > 0
        if frozen and self.stages[0].attention is not None and self.pretrained_cfg is None:
            warnings.warn(
                f'freeze_attention=True keeps the random attention of frozen_stages='
                f'{self.frozen_stages} as it is, unless trained weights are loaded',
                stacklevel=2,
            )

    def _start_attention(self) -> None:
        if not self.zero_init_attention:
            return
        for stage in self.stages:
            stage.start_as_identity()

    def _freeze_stages(self) -> None:
        if self.frozen_stages < 0:
            return
        frozen = list(self.stem_layers)
        for stage in self.stages[: self.frozen_stages]:
            frozen += [stage] if self.freeze_attention else stage
        for module in frozen:
            module.eval()
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Feature maps of the stages in ``out_indices``.

        Args:
            x (Tensor): Images, shape (B, in_channels, H, W).

        Returns:
            tuple[Tensor, ...]: Shapes (B, C_i, H_i, W_i).
        """
        x = self._stem(x)
        outs, carried = [], None
        for i, stage in enumerate(self.stages):
            if stage.crosses:
                states: list = []
                x, carried = stage(x, carried, states.append), states[0]
            else:
                x = stage(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def _stem(self, x: Tensor) -> Tensor:
        """Images to (B, stem_channels, H / 4, W / 4); of CIFAR's ResNets (..., H, W)."""
        if self.deep_stem:
            return self.maxpool(self.stem(x))
        norm = getattr(self, self.norm1_name)
        return self.maxpool(apply_relu(self.relu, norm(self.conv1(x)), norm))

    def train(self, mode: bool = True) -> 'DLAResNet':
        """Set the mode, but for what is frozen and, with ``norm_eval``, batch norm."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
