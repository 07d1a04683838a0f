"""Residual blocks: ``block(x)`` is one map, as in MMDetection and MMPretrain.

The stage may hand in a function that makes the shortcut, which the layer attention needs too, and
one that changes the residual before the sum.
"""

from collections.abc import Callable

from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...ops.batch_norm import has_running_affine
from ...ops.choice import is_looked_into, is_observed
from ..layers import build_conv, build_norm, build_plugin


def apply_relu(relu: nn.Module, x: Tensor, *makers: nn.Module) -> Tensor:
    """``relu(x)``, in the place of ``x`` if nobody can tell.

    Args:
        relu (nn.Module): The activation.
        x (Tensor): What it is for, shape (B, C, H, W).
        makers (nn.Module): The modules that made ``x``; their hooks may have kept it.
    """
    if type(relu) is nn.ReLU and makes_new_maps(x, *makers, relu):
        return x.relu_()
    return relu(x)


def makes_new_maps(x: Tensor, *modules: nn.Module) -> bool:
    """Return whether nobody else has what these modules return: plain layers without hooks."""
    return not is_looked_into(x) and not any(
        is_observed(m) or type(m) not in (nn.BatchNorm2d, nn.Conv2d, nn.ReLU) for m in modules
    )


class ResidualBlock(BaseModule):
    """Hold what both blocks share.

    Args:
        in_channels (int): Channels of the input.
        mid_channels (int): Channels of the 3x3 convolutions.
        out_channels (int): Channels of the output.
        stride (int): Stride of the block.
        dilation (int): Dilation of its (first) 3x3 convolution.
        downsample (nn.Module, optional): What the shortcut passes through.
        drop_path_rate (float): Probability that a sample's residual is dropped.
        conv_cfg (dict, optional): Convolutions other than the deformable ones.
        norm_cfg (dict): Norm layers.
    """

    expansion: int  # output channels over the channels of the 3x3 convolutions
    num_convs: int

    def __init__(
        self,
        in_channels,
        mid_channels,
        out_channels,
        stride,
        dilation,
        downsample,
        drop_path_rate,
        conv_cfg,
        norm_cfg,
    ) -> None:
        super().__init__()
        self.in_channels, self.mid_channels = in_channels, mid_channels
        self.out_channels, self.stride, self.dilation = out_channels, stride, dilation
        self.with_cp = False  # the stage checkpoints
        self.downsample = downsample
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()
        self.relu = nn.ReLU()
        self.conv_cfg, self.norm_cfg = conv_cfg, norm_cfg

    def _add_conv(self, i: int, in_channels: int, out_channels: int, kernel_size: int, **kwargs):
        """Add ``conv{i}`` and its norm, named as in the hosts (``bn1``, ``gn1``)."""
        cfg = kwargs.pop('cfg', self.conv_cfg)
        name = 'conv_cfg' if cfg is self.conv_cfg else 'dcn'
        conv = build_conv(
            cfg, in_channels, out_channels, kernel_size=kernel_size, bias=False, name=name, **kwargs
        )
        self.add_module(f'conv{i}', conv)
        name, norm = build_norm(self.norm_cfg, out_channels, postfix=i)
        self.add_module(name, norm)
        setattr(self, f'norm{i}_name', name)

    def norm(self, i: int) -> nn.Module:
        """Return the norm layer after ``conv{i}``."""
        return getattr(self, getattr(self, f'norm{i}_name'))

    def conv(self, i: int) -> nn.Module:
        """Return ``conv{i}``."""
        return getattr(self, f'conv{i}')

    @property
    def norm1(self) -> nn.Module:
        return self.norm(1)

    @property
    def norm2(self) -> nn.Module:
        return self.norm(2)

    @property
    def last_norm(self) -> nn.Module:
        """The norm layer of the residual."""
        return self.norm(self.num_convs)

    def zero_init_last_norm(self) -> None:
        """Let the block start as the identity, if its norms have weights."""
        if self.last_norm.weight is not None:  # norm_cfg has affine=False
            nn.init.zeros_(self.last_norm.weight)

    def expect_extra(self) -> None:
        """Register ``conv1`` behind all norms.

        ``conv1(x) + extra`` passes the first norm: whoever folds norms into the convolutions
        registered before them must leave that one alone.
        """
        self._modules['conv1'] = self._modules.pop('conv1')

    def can_leave_norm(self) -> bool:
        """Return whether ``residual(x, last_norm=False)`` leaves out just an affine map."""
        norm = self.last_norm
        drops = self.training and not isinstance(self.drop_path, nn.Identity)
        seen = is_observed(norm) or is_observed(self.drop_path)
        return has_running_affine(norm) and not seen and not drops

    def owns_residual(self, last_norm: bool = True) -> bool:
        """Return whether nobody else has what ``residual(x, last_norm)`` returned."""
        made_by = self.last_norm if last_norm else self.conv(self.num_convs)
        kind = nn.BatchNorm2d if last_norm else nn.Conv2d
        return (
            type(made_by) is kind and not is_observed(made_by) and not is_observed(self.drop_path)
        )

    def is_as_written(self) -> bool:
        """Return whether the block ends in :meth:`finish` with a ReLU, whatever its residual is."""
        own = type(self)
        return (
            own.forward is ResidualBlock.forward
            and own.finish is ResidualBlock.finish
            and type(self.relu) is nn.ReLU
            and not any(name in self.__dict__ for name in ('residual', 'finish', 'shortcut'))
        )

    def forward(
        self,
        x: Tensor,
        shortcut_of: Callable[[Tensor], Tensor] | None = None,
        recalibrate: Callable[[Tensor], Tensor] | None = None,
        extra: Tensor | None = None,
    ) -> Tensor:
        """Return ``ReLU(residual(x) + shortcut)``.

        Args:
            x (Tensor): Shape (B, C_in, H, W).
            shortcut_of (Callable, optional): Called in place of ``self.shortcut``.
            recalibrate (Callable, optional): Changes the residual before the sum.
            extra (Tensor, optional): Is added to the output of the first convolution.

        Returns:
            Tensor: Shape (B, C, H / stride, W / stride).
        """
        # (B, C, H / stride, W / stride)
        residual = self.residual(x) if extra is None else self.residual(x, extra=extra)
        # after the residual, as in the hosts: gradients add up in that order
        shortcut = self.shortcut(x) if shortcut_of is None else shortcut_of(x)
        if recalibrate is None:
            return self.finish(residual, shortcut, self.owns_residual())
        return self.finish(recalibrate(residual), shortcut)

    def residual(self, x: Tensor, last_norm: bool = True, extra: Tensor | None = None) -> Tensor:
        """Return the residual branch, (B, C, H / stride, W / stride)."""
        raise NotImplementedError

    def first(self, x: Tensor, extra: Tensor | None) -> Tensor:
        """Return what the first convolution, norm and ReLU make of the input."""
        out = self.conv1(x)
        if extra is not None:
            out = out + extra
        return apply_relu(self.relu, self.norm1(out), self.norm1)

    def shortcut(self, x: Tensor) -> Tensor:
        """Return the shortcut branch, (B, C, H / stride, W / stride)."""
        return x if self.downsample is None else self.downsample(x)

    def finish(self, residual: Tensor, shortcut: Tensor, overwritable: bool = False) -> Tensor:
        """Return ``ReLU(drop_path(residual) + shortcut)``, (B, C, H, W)."""
        if overwritable and type(self.drop_path) is nn.Identity and not is_looked_into(residual):
            residual += shortcut
            return apply_relu(self.relu, residual)
        residual = self.drop_path(residual)
        if isinstance(shortcut, Tensor) and shortcut.dtype != residual.dtype:
            shortcut = shortcut.to(residual.dtype)  # autocast: as a sum in place
        return apply_relu(self.relu, residual + shortcut)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions; the first one strides.

    Arguments are those of :class:`ResidualBlock`.
    """

    expansion = 1
    num_convs = 2

    def __init__(
        self, in_channels, mid_channels, out_channels, stride=1, dilation=1, **kwargs
    ) -> None:
        super().__init__(in_channels, mid_channels, out_channels, stride, dilation, **kwargs)
        self._add_conv(
            1, in_channels, mid_channels, 3, stride=stride, padding=dilation, dilation=dilation
        )
        self._add_conv(2, mid_channels, out_channels, 3, padding=1)

    def residual(self, x: Tensor, last_norm: bool = True, extra: Tensor | None = None) -> Tensor:
        out = self.conv2(self.first(x, extra))
        return self.last_norm(out) if last_norm else out


class Bottleneck(ResidualBlock):
    """1x1, 3x3, 1x1 convolutions; the 3x3 one may be grouped (ResNeXt) or deformable.

    Args:
        style (str): ``'pytorch'`` strides in the 3x3 convolution, ``'caffe'`` in the first one.
        groups (int): Groups of the 3x3 convolution.
        dcn (dict, optional): Config of a deformable convolution for the 3x3 one.
        plugins (list[dict]): Plugin layers, each ``dict(cfg=…, position='after_conv{1,2,3}')``.
        **kwargs: As :class:`ResidualBlock`, as are the other arguments.
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
        super().__init__(in_channels, mid_channels, out_channels, stride, dilation, **kwargs)
        self.style = style
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
            cfg=dcn or self.conv_cfg,
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

    @property
    def norm3(self) -> nn.Module:
        return self.norm(3)

    def can_leave_norm(self) -> bool:
        return super().can_leave_norm() and not self.plugin_names['after_conv3']

    def owns_residual(self, last_norm: bool = True) -> bool:
        return super().owns_residual(last_norm) and not self.plugin_names['after_conv3']

    def residual(self, x: Tensor, last_norm: bool = True, extra: Tensor | None = None) -> Tensor:
        out = self._after(1, self.first(x, extra))
        out = apply_relu(self.relu, self.norm2(self.conv2(out)), self.norm2)
        out = self.conv3(self._after(2, out))
        if last_norm:
            out = self._after(3, self.last_norm(out))
        return out
