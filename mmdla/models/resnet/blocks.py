"""Residual blocks that hand out their two branches: ``block(x) -> (residual, shortcut)``.

The stage adds the branches, so that a layer attention can work on either side of the sum.
"""

from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...ops import is_fixed_affine
from ..layers import build_conv, build_norm, build_plugin


class ResidualBlock(BaseModule):
    """What both blocks share.

    Args:
        downsample (nn.Module, optional): What the shortcut passes through.
        drop_path_rate (float): Probability that a sample's residual is dropped.
        conv_cfg (dict, optional): Convolutions other than the deformable ones.
        norm_cfg (dict): Norm layers.
    """

    expansion: int  # output channels over the channels of the 3x3 convolutions
    num_convs: int

    def __init__(self, downsample, drop_path_rate, conv_cfg, norm_cfg) -> None:
        super().__init__()
        self.downsample = downsample
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.relu = nn.ReLU(inplace=True)
        self._conv_cfg, self._norm_cfg = conv_cfg, norm_cfg

    def _add_conv(self, i: int, in_channels: int, out_channels: int, kernel_size: int, **kwargs):
        """Add ``conv{i}`` and its norm, named as in the host libraries (``bn1``, ``gn1``)."""
        cfg = kwargs.pop('cfg', self._conv_cfg)
        name = 'conv_cfg' if cfg is self._conv_cfg else 'dcn'
        conv = build_conv(
            cfg, in_channels, out_channels, kernel_size=kernel_size, bias=False, name=name, **kwargs
        )
        self.add_module(f'conv{i}', conv)
        name, norm = build_norm(self._norm_cfg, out_channels, postfix=i)
        self.add_module(name, norm)
        setattr(self, f'norm{i}_name', name)

    def norm(self, i: int) -> nn.Module:
        """The norm layer after ``conv{i}``."""
        return getattr(self, getattr(self, f'norm{i}_name'))

    @property
    def last_norm(self) -> nn.Module:
        """The norm layer of the residual."""
        return self.norm(self.num_convs)

    def zero_init_last_norm(self) -> None:
        """Let the block start as the identity, if its norms have weights."""
        if self.last_norm.weight is not None:  # norm_cfg has affine=False
            nn.init.zeros_(self.last_norm.weight)

    def can_leave_norm(self) -> bool:
        """Whether ``forward(x, last_norm=False)`` leaves out an affine map and nothing else."""
        norm = self.last_norm
        observed = (self._forward_hooks, norm._forward_hooks, norm._forward_pre_hooks)
        drops = self.training and not isinstance(self.drop_path, nn.Identity)
        return is_fixed_affine(norm) and not (any(observed) or drops)

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions; the first one strides.

    Args:
        in_channels (int): Channels of the input.
        mid_channels (int): Channels between the convolutions.
        out_channels (int): Channels of both branches.
        stride (int): Stride of the block.
        dilation (int): Dilation of the first convolution.
        **kwargs: As :class:`ResidualBlock`.
    """

    expansion = 1
    num_convs = 2

    def __init__(
        self,
        in_channels,
        mid_channels,
        out_channels,
        stride=1,
        dilation=1,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self._add_conv(
            1, in_channels, mid_channels, 3, stride=stride, padding=dilation, dilation=dilation
        )
        self._add_conv(2, mid_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, last_norm: bool = True) -> tuple[Tensor, Tensor]:
        """(B, C_in, H, W) to residual and shortcut, each (B, C, H/stride, W/stride)."""
        out = self.conv2(self.relu(self.norm(1)(self.conv1(x))))
        return self.last_norm(out) if last_norm else out, self.shortcut(x)


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions; the 3x3 one may be grouped (ResNeXt) or deformable.

    Args:
        in_channels (int): Channels of the input.
        mid_channels (int): Channels of the 3x3 convolution.
        out_channels (int): Channels of both branches.
        stride (int): Stride of the block.
        dilation (int): Dilation of the 3x3 convolution.
        style (str): ``'pytorch'`` strides in the 3x3 convolution, ``'caffe'`` in the first one.
        groups (int): Groups of the 3x3 convolution.
        dcn (dict, optional): Config of a deformable convolution for the 3x3 one.
        plugins (list[dict]): Plugin layers, each ``dict(cfg=…, position='after_conv{1,2,3}')``.
        **kwargs: As :class:`ResidualBlock`.
    """

    expansion = 4
    num_convs = 3

    def __init__(
        self,
        in_channels,
        mid_channels,
        out_channels,
        stride=1,
        dilation=1,
        style='pytorch',
        groups=1,
        dcn=None,
        plugins=(),
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        stride1, stride2 = (1, stride) if style == 'pytorch' else (stride, 1)
        self._add_conv(1, in_channels, mid_channels, 1, stride=stride1)
        self._add_conv(
            2,
            mid_channels,
            mid_channels,
            3,
            stride=stride2,
            padding=dilation,
            dilation=dilation,
            groups=groups,
            cfg=dcn or self._conv_cfg,
        )
        self._add_conv(3, mid_channels, out_channels, 1)
        widths = dict(after_conv1=mid_channels, after_conv2=mid_channels, after_conv3=out_channels)
        self.plugin_names: dict[str, list[str]] = {position: [] for position in widths}
        for plugin in plugins:
            self._add_plugin(plugin, widths)

    def _add_plugin(self, plugin: dict, widths: dict[str, int]) -> None:
        cfg, position = dict(plugin['cfg']), plugin['position']
        name, layer = build_plugin(
            cfg, in_channels=widths[position], postfix=cfg.pop('postfix', '')
        )
        if hasattr(self, name):
            raise ValueError(f"plugins: {name} is there twice, tell them apart by 'postfix'")
        self.add_module(name, layer)
        self.plugin_names[position].append(name)

    def _after(self, i: int, x: Tensor) -> Tensor:
        for name in self.plugin_names[f'after_conv{i}']:
            x = getattr(self, name)(x)
        return x

    def can_leave_norm(self) -> bool:
        return super().can_leave_norm() and not self.plugin_names['after_conv3']

    def forward(self, x: Tensor, last_norm: bool = True) -> tuple[Tensor, Tensor]:
        """(B, C_in, H, W) to residual and shortcut, each (B, C, H/stride, W/stride)."""
        out = self._after(1, self.relu(self.norm(1)(self.conv1(x))))
        out = self._after(2, self.relu(self.norm(2)(self.conv2(out))))
        out = self.conv3(out)
        if last_norm:
            out = self._after(3, self.last_norm(out))
        return out, self.shortcut(x)
