"""Checks of the backbone's arguments that take more than one line."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..arguments import (
    check_bool,
    check_cfg,
    check_choice,
    check_init_cfg,
    check_int,
    check_rate,
    check_sequence,
    describe,
    is_number,
    is_pretrained,
    is_sequence,
)
from .blocks import Bottleneck

POSITIONS = ('after_conv1', 'after_conv2', 'after_conv3')


def split_init_cfg(init_cfg: Any, pretrained: str | None) -> tuple[list[dict], dict | None]:
    """Separate ``Pretrained`` from the rest of ``init_cfg``; the rest has a default.

    Returns:
        tuple[list[dict], dict | None]: Other initializers; the ``Pretrained`` one.
    """
    if pretrained is not None:
        if not isinstance(pretrained, str):
            raise TypeError(f'pretrained must be a path or None, got {describe(pretrained)}')
        if not pretrained:
            raise ValueError(f'pretrained must be a path or None, got {pretrained!r}')
        if init_cfg is not None:
            raise ValueError('give pretrained or init_cfg, not both')
        init_cfg = dict(type='Pretrained', checkpoint=pretrained)
    cfgs = check_init_cfg(init_cfg)
    loads = [cfg for cfg in cfgs if is_pretrained(cfg['type'])]
    others = [cfg for cfg in cfgs if not is_pretrained(cfg['type'])]
    if len(loads) > 1:
        raise ValueError(f"init_cfg must have one entry of type 'Pretrained', got {loads!r}")
    if not others:
        others = [
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ]
    return others, loads[0] if loads else None


def check_out_indices(out_indices: Any, num_stages: int) -> tuple[int, ...]:
    """Stages to return, in range, in order and without repetition."""
    if out_indices is None:
        return tuple(range(num_stages))
    if not (is_sequence(out_indices) and len(out_indices)):
        raise TypeError(f'out_indices must be a sequence of stages, got {describe(out_indices)}')
    for i in out_indices:
        if not (is_number(i) and isinstance(i, numbers.Integral) and 0 <= i < num_stages):
            raise ValueError(
                f'out_indices must lie in 0..{num_stages - 1} for num_stages={num_stages}, '
                f'got {tuple(out_indices)}'
            )
    if sorted(set(out_indices)) != list(out_indices):
        raise ValueError(f'out_indices must increase, got {tuple(out_indices)}')
    return tuple(int(i) for i in out_indices)


def check_multi_grid(multi_grid: Any, num_blocks: int) -> tuple[int, ...] | None:
    """Dilation of every block of the last stage, or None."""
    return None if multi_grid is None else check_sequence('multi_grid', multi_grid, num_blocks)


def block_dilations(
    dilation: int, num_blocks: int, contract: bool, multi_grid: tuple[int, ...] | None
) -> tuple[int, ...]:
    """Dilation of every block of a stage, as in MMSegmentation."""
    if multi_grid is not None:
        return multi_grid
    first = dilation // 2 if contract and dilation > 1 else dilation
    return (first, *(dilation,) * (num_blocks - 1))


def check_stem_channels(stem_channels: Any, deep_stem: bool) -> int:
    """Return the channels of the stem; a deep one starts with half of them."""
    stem_channels = check_int('stem_channels', stem_channels)
    if deep_stem and stem_channels % 2:
        raise ValueError(f'stem_channels must be even for deep_stem=True, got {stem_channels}')
    return stem_channels


def block_width(block: type, planes: int, base_channels: int, groups: int, base_width: int) -> int:
    """Channels of a block's 3x3 convolution: ``planes``, or ResNeXt's."""
    check_int('groups', groups)
    check_int('base_width', base_width)
    if groups == 1:
        return planes
    if block is not Bottleneck:
        raise ValueError(f'groups must be 1 for basic blocks (depth 18, 34), got {groups}')
    width = math.floor(planes * (base_width / base_channels)) * groups
    if width < 1:
        raise ValueError(
            f'base_width must leave a channel to each group, got base_width={base_width} '
            f'for base_channels={base_channels}'
        )
    return width


def spread_drop_path(rate: Any, stage_blocks: Sequence[int]) -> list[list[float]]:
    """Rates that grow linearly from 0 to ``rate`` over the blocks, stage by stage."""
    last = check_rate('drop_path_rate', rate)
    rates = torch.linspace(0, last, sum(stage_blocks), device='cpu').tolist()  # even under meta
    return [[rates.pop(0) for _ in range(n)] for n in stage_blocks]


def check_dcn(dcn: Any, stage_with_dcn: Any, block: type, num_stages: int) -> list[dict | None]:
    """Deformable convolution of every stage, or None."""
    dcn = check_cfg('dcn', dcn, optional=True)
    if dcn is None:
        # of any length, since a config that has fewer stages may leave the default of four
        if not is_sequence(stage_with_dcn) or not all(
            isinstance(w, (bool, np.bool_)) for w in stage_with_dcn
        ):
            raise TypeError(f'stage_with_dcn must be a sequence of bools, got {stage_with_dcn!r}')
        if any(stage_with_dcn):
            raise ValueError(f'stage_with_dcn={tuple(stage_with_dcn)} needs dcn, got dcn=None')
        return [None] * num_stages
    stages = check_sequence('stage_with_dcn', stage_with_dcn, num_stages, minimum=None)
    if not any(stages):
        raise ValueError('dcn needs a stage: stage_with_dcn is False for all of them')
    if block is not Bottleneck:
        raise ValueError('dcn needs bottlenecks (depth 50, 101, 152), it is not for basic blocks')
    try:
        import mmcv.ops  # noqa: F401 - registers the deformable convolutions
    except ImportError as error:
        raise ImportError('dcn needs mmcv with its compiled ops, not mmcv-lite') from error
    if check_bool('dcn.fallback_on_stride', dcn.pop('fallback_on_stride', False)):
        return [None] * num_stages
    return [dcn if with_dcn else None for with_dcn in stages]


def check_plugins(plugins: Any, block: type, num_stages: int) -> list[list[dict]]:
    """Plugins of every stage."""
    if plugins is not None and not is_sequence(plugins):
        raise TypeError(f'plugins must be a list of dicts, got {describe(plugins)}')
    if not plugins:
        return [[] for _ in range(num_stages)]
    if block is not Bottleneck:
        raise ValueError('plugins need bottlenecks (depth 50, 101, 152), not basic blocks')
    per_stage: list[list[dict]] = [[] for _ in range(num_stages)]
    for n, plugin in enumerate(plugins):
        if not isinstance(plugin, dict) or not {'cfg', 'position'} <= set(plugin):
            raise ValueError(f"plugins[{n}] must have 'cfg' and 'position', got {plugin!r}")
        if unknown := set(plugin) - {'cfg', 'position', 'stages'}:
            raise ValueError(f'plugins[{n}] must not have {unknown}, got {plugin!r}')
        check_choice(f'plugins[{n}].position', plugin['position'], POSITIONS)
        check_cfg(f'plugins[{n}].cfg', plugin['cfg'])
        stages = plugin.get('stages')
        stages = (True,) * num_stages if stages is None else stages
        stages = check_sequence(f'plugins[{n}].stages', stages, num_stages, minimum=None)
        for i, wanted in enumerate(stages):
            if wanted:
                per_stage[i].append(dict(cfg=plugin['cfg'], position=plugin['position']))
    return per_stage
