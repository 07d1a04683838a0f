"""Loading a checkpoint into a backbone: all of it, or a refusal that says what and where."""

import re
from dataclasses import dataclass

from mmengine.logging import print_log
from torch import nn

from .check import listed, weight_problems
from .errors import CheckpointError, some
from .names import select_backbone, to_our_names
from .read import read_state_dict


@dataclass(frozen=True)
class LoadReport:
    """What a checkpoint gave to a backbone.

    Attributes:
        source (str): The checkpoint.
        loaded (list[str]): Names that were loaded.
        new (list[str]): Names of the model that the checkpoint does not have.
        left_out (list[str]): Names of the checkpoint that the backbone does not need.
    """

    source: str
    loaded: list[str]
    new: list[str]
    left_out: list[str]

    def __str__(self) -> str:
        attention = [name for name in self.loaded if '.attention.' in name]
        lines = [f'Backbone weights from {self.source}']
        lines.append(f'  loaded:   {len(self.loaded)} tensors, {len(attention)} of the attention')
        lines.append(f'  new:      {len(self.new)} tensors{_groups(self.new)}')
        lines.append(f'  left out: {len(self.left_out)} tensors{_groups(self.left_out)}')
        return '\n'.join(lines)


def _groups(names: list[str]) -> str:
    """Names in short: ``layer1.attention (12), …``."""
    counts: dict[str, int] = {}
    for name in names:
        parts = name.split('.')
        group = '.'.join(parts[:2]) if parts[0].startswith('layer') else parts[0]
        counts[group] = counts.get(group, 0) + 1
    return ': ' * bool(counts) + ', '.join(f'{group} ({n})' for group, n in counts.items())


def load_backbone(
    model: nn.Module, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu'
) -> LoadReport:
    """Load a ResNet checkpoint, or one of ours, into a :class:`~mmdla.DLAResNet`.

    Classifiers and detectors are accepted, the backbone is taken out of them. Only what a ResNet
    does not have may be missing: the attention (all of it or nothing), plugins, offsets of
    deformable convolutions, batch counters. Everything else must fit.

    Args:
        model (nn.Module): The backbone.
        checkpoint (str): File or address.
        prefix (str, optional): Prefix of the backbone's names in the checkpoint. Default: found.
        map_location (str): Accepted as in MMEngine; tensors pass through the CPU.

    Returns:
        LoadReport: What happened; it is logged as well.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not fit; the model is unchanged.
        TypeError: ``prefix`` is no string.
    """
    if not (prefix is None or isinstance(prefix, str)):
        raise TypeError(f'prefix must be a string or None, got {prefix!r}')
    state, left_out = select_backbone(read_state_dict(checkpoint), prefix)
    if not state:
        raise CheckpointError(f'{checkpoint}: no names that start with {prefix!r}')
    count = len(state)
    state = to_our_names(state, avg_down=model.avg_down)
    if len(state) < count:
        raise CheckpointError(f'{checkpoint}: two of its names mean the same weight')
    own = model.state_dict()
    not_ours = [name for name in state if name not in own]
    spare = [name for name in not_ours if _is_spare(name, model.num_stages)]
    missing = [name for name in own if name not in state]
    new = [name for name in missing if _may_be_new(name, model)]
    problems = listed(
        {
            'not in the model': [name for name in not_ours if name not in spare],
            'not in the checkpoint': [name for name in missing if name not in new],
            **weight_problems(state, own),
        }
    )
    new_attention = [name for name in new if _is_attention(name)]
    if new_attention and any(_is_attention(name) for name in state):
        problems.append(f'attention weights missing: {some(new_attention)}')
    if model.freeze_attention and not model.zero_init_attention:
        frozen = tuple(f'layer{i + 1}.' for i in range(model.frozen_stages))
        untrained = [name for name in new_attention if name.startswith(frozen)]
        if untrained:
            problems.append(
                'freeze_attention=True without zero_init_attention would freeze attention '
                f'that nothing has trained: {some(untrained)}'
            )
    if problems:
        raise CheckpointError(
            f'{checkpoint} does not fit {_describe(model)}; nothing was loaded.\n  '
            + '\n  '.join(problems)
        )
    loaded = {name: v for name, v in state.items() if name in own}
    model.load_state_dict(loaded, strict=False)
    report = LoadReport(
        checkpoint,
        list(loaded),
        [name for name in new if not name.endswith('num_batches_tracked')],
        left_out + spare,
    )
    print_log(str(report), logger='current')
    return report


def _is_attention(name: str) -> bool:
    return re.match(r'layer\d+\.attention\.', name) is not None


def _is_spare(name: str, num_stages: int) -> bool:
    """A classifier's layer, or a stage that the model does not have."""
    if match := re.match(r'layer(\d+)\.', name):
        return num_stages < int(match[1]) <= 4
    return name.startswith(('fc.', 'head.', 'classifier.'))


def _may_be_new(name: str, model: nn.Module) -> bool:
    if _is_attention(name) or name.endswith('num_batches_tracked') or '.conv_offset.' in name:
        return True
    plugins = {
        plugin
        for stage in model.stages
        for block in stage
        for names in getattr(block, 'plugin_names', {}).values()
        for plugin in names
    }
    return any(part in plugins for part in name.split('.'))


def _describe(model: nn.Module) -> str:
    attention = model.stages[0].attention
    kind = 'no layer attention' if attention is None else type(attention).__name__
    return f'{type(model).__name__}(depth={model.depth}) with {kind}'
