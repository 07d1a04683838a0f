"""Layers from their configs by MMCV, with errors that name the argument of the config."""

import difflib
from typing import Any

import torch
from mmcv.cnn import build_conv_layer, build_norm_layer, build_plugin_layer
from mmengine.registry import MODELS
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from .arguments import check_bool, check_cfg, check_names, describe, errors_named, is_number

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)

CONV_OF_OTHER_MAPS = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def build_conv(cfg: dict | None, *args: Any, name: str = 'conv_cfg', **kwargs: Any) -> nn.Module:
    """``mmcv.cnn.build_conv_layer``; the layer must be one for maps (B, C, H, W).

    Raises:
        TypeError: The layer does not take an argument of ``cfg``.
        ValueError: There is no such layer, or it takes other maps.
    """
    # MMCV takes the older name of deform_groups too, with a warning
    check_layer_type(name, cfg, _ConvNd, also=('deformable_groups',))
    with errors_named(name):
        layer = build_conv_layer(cfg, *args, **kwargs)
    if isinstance(layer, CONV_OF_OTHER_MAPS):
        raise ValueError(f'{name} must be a 2D convolution, got {cfg!r}')
    groups = getattr(layer, 'deform_groups', 1)
    if layer.in_channels % groups:  # MMCV notices in the forward pass
        raise ValueError(f'{name}: deform_groups must divide {layer.in_channels}, got {groups}')
    return layer


def build_norm(cfg: dict, channels: int, **kwargs: Any) -> tuple[str, nn.Module]:
    """``mmcv.cnn.build_norm_layer``; the layer must be one for maps (B, C, H, W).

    Raises:
        TypeError: The layer does not take an argument of ``cfg``.
        ValueError: There is no such layer, or it takes other maps.
    """
    check_layer_type('norm_cfg', cfg, NORMS)
    with errors_named('norm_cfg'):
        name, layer = build_norm_layer(cfg, channels, **kwargs)
    if not _takes_maps(layer, channels):
        raise ValueError(f'norm_cfg must be a norm of maps (B, C, H, W), got {cfg!r}')
    return name, layer


def check_layer_type(
    name: str, cfg: dict | None, kinds: type | tuple[type, ...], also: tuple[str, ...] = ()
) -> None:
    """Refuse a type or an argument that does not exist, with the nearest right word.

    Raises:
        TypeError: The layer has no such argument.
        ValueError: There is no such layer.
    """
    if cfg is None:
        return
    with errors_named(name), MODELS.switch_scope_and_registry(None) as registry:
        kind = cfg['type']
        layer = registry.get(kind) if isinstance(kind, str) else kind
    if layer is None:
        names = {  # those of maps
            word: key
            for key, known in MODELS.module_dict.items()
            if isinstance(known, type) and issubclass(known, kinds)
            for word in (key, known.__name__)
            if not word.endswith(('1d', '3d')) and not key.endswith(('1d', '2d', '3d'))
        }
        near = difflib.get_close_matches(kind, names, 1, 0.5)
        word = f', did you mean {names[near[0]]!r}?' if near else ''
        raise ValueError(f'{name}: unknown type {kind!r}{word}')
    if isinstance(layer, type):
        check_names(name, layer, cfg, also=('type', 'requires_grad', *also))


def _takes_maps(layer: nn.Module, channels: int) -> bool:
    shape, mode, eps = (1, channels, 2, 3), layer.training, getattr(layer, 'eps', None)
    try:
        if eps == 0:  # PyTorch's functions may refuse it, which is not the question here
            vars(layer)['eps'] = 1e-5
        with torch.no_grad():
            return layer.eval()(torch.zeros(shape)).shape == shape
    except (RuntimeError, ValueError):
        return False
    finally:
        layer.train(mode)
        if eps == 0:
            layer.eps = eps


def build_plugin(cfg: dict, **kwargs: Any) -> tuple[str, nn.Module]:
    """``mmcv.cnn.build_plugin_layer``.

    Raises:
        TypeError: The layer does not take an argument of ``cfg``.
        ValueError: There is no such layer, or it cannot be made with these arguments.
    """
    check_layer_type('plugins', cfg, nn.Module, also=('postfix',))
    with errors_named('plugins'):
        return build_plugin_layer(cfg, **kwargs)


def check_norm_cfg(cfg: Any) -> dict:
    """Return a copy of ``norm_cfg``, by default batch norm."""
    cfg = check_cfg('norm_cfg', dict(type='BN') if cfg is None else cfg)
    for key in ('requires_grad', 'affine', 'track_running_stats'):
        if key in cfg:
            cfg[key] = check_bool(f'norm_cfg: {key}', cfg[key])
    allowed = dict(eps=lambda v: v >= 0, momentum=lambda v: 0 <= v <= 1)
    for key, is_allowed in allowed.items():
        value = cfg.get(key)
        if key not in cfg or (key == 'momentum' and value is None):
            continue
        if not is_number(value):
            raise TypeError(f'norm_cfg: {key} must be a number, got {describe(value)}')
        if not is_allowed(value):
            limits = '>= 0' if key == 'eps' else 'in [0, 1]'
            raise ValueError(f'norm_cfg: {key} must be {limits}, got {value}')
    return cfg
