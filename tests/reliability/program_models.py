"""The models of random programs: two stages, few channels, statistics and affine parameters at random."""

import copy
import functools

import torch
from attention_lists import FUSED, small
from programs import Setup
from torch import Tensor, nn

from mmdla import DLAResNet


def build(setup: Setup, ops: str) -> DLAResNet:
    """Return a model of its own, in float64."""
    return copy.deepcopy(_model(_built_alike(setup), ops))


@functools.lru_cache(maxsize=64)
def _model(setup: Setup, ops: str) -> DLAResNet:
    attention = None
    if setup.attention is not None:
        attention = small(setup.attention) | dict(setup.options)
        if setup.attention in FUSED:
            attention.update(ops=ops, drop_path_rate=setup.drop_path)
    norm_cfg = dict(type='GN', num_groups=4) if setup.norm == 'GN' else dict(type='BN')
    torch.manual_seed(3)
    model = DLAResNet(
        setup.depth,
        base_channels=8,
        stem_channels=8,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(0, 1),
        norm_cfg=norm_cfg,
        norm_eval=setup.norm_eval,
        with_cp=setup.with_cp,
        drop_path_rate=setup.drop_path,
        zero_init_residual=False,
        layer_attention=attention,
    ).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                module.weight.copy_(0.3 + 0.4 * _random(module.weight, generator))
                module.bias.copy_(0.3 * _random(module.bias, generator))
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(0.2 * _random(module.running_mean, generator))
                module.running_var.copy_(0.5 + _random(module.running_var, generator))
    return model


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype)


@functools.lru_cache(maxsize=64)
def module_names(setup: Setup) -> dict[str, tuple[str, ...]]:
    """Names of modules by what they are: 'block', 'stage', 'attention', 'leaf', 'inner'."""
    model = _model(setup, 'reference')
    names: dict[str, list[str]] = {k: [] for k in ('block', 'stage', 'attention', 'leaf', 'inner')}
    for name, _ in model.named_modules():
        if not name:
            continue
        parts = name.split('.')
        if name.startswith('layer') and len(parts) == 1:
            kind = 'stage'
        elif name.startswith('layer') and len(parts) == 2:
            kind = 'attention' if parts[1] == 'attention' else 'block'
        elif 'attention' in parts:
            kind = 'inner'
        else:
            kind = 'leaf'
        names[kind].append(name)
    return {kind: tuple(found) for kind, found in names.items()}


def _built_alike(setup: Setup) -> Setup:
    """Return the setup without what is done to a model afterwards."""
    same = dict(attention=setup.attention, options=setup.options, depth=setup.depth)
    same.update(norm=setup.norm, norm_eval=setup.norm_eval, with_cp=setup.with_cp)
    return Setup(**same, drop_path=setup.drop_path)
