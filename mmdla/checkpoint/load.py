"""Loading a checkpoint into a backbone: all of it, or a refusal that says what and where."""

import logging
import re
from dataclasses import dataclass, field

from mmengine.logging import print_log
from torch import Tensor, nn

from .biases import take_biases
from .check import listed, weight_problems
from .errors import CheckpointError, some
from .names import to_our_names
from .prefix import read_backbone

# what other kinds of ResNet have beside the stages, without which they compute something else
PARTS = re.compile(r'(layer|stem|conv|bn|gn|norm|downsample)\d*(\.|_|$)|$')


@dataclass(frozen=True)
class LoadReport:
    """Report of what a checkpoint gave to a backbone.

    Attributes:
        source (str): The checkpoint.
        loaded (list[str]): Names that were loaded.
        new (list[str]): Names of the model that the checkpoint does not have.
        left_out (list[str]): Names of the checkpoint that the backbone does not need.
        folded (list[str]): Biases of convolutions that are in the running means now.
    """

    source: str
    loaded: list[str]
    new: list[str]
    left_out: list[str]
    folded: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        attention = [name for name in self.loaded if '.attention.' in name]
        lines = [f'Backbone weights from {self.source}']
        lines.append(f'  loaded:   {len(self.loaded)} tensors, {len(attention)} of the attention')
        lines.append(f'  new:      {len(self.new)} tensors{_groups(self.new)}')
        lines.append(f'  left out: {len(self.left_out)} tensors{_groups(self.left_out)}')
        if self.folded:
            lines.append(f'  folded into running means: {some(self.folded)}')
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

    Classifiers, detectors and what self-supervised training saves are accepted; the backbone is
    taken out of them, heads and queues are left out. Only what a ResNet does not have may be
    missing: the attention (all of it or nothing), plugins, offsets of deformable convolutions,
    batch counters; and with other ``in_channels`` than the checkpoint's the first convolution,
    about which it warns. Biases of convolutions go into the running means of the norms.
    Everything else must fit.

    Args:
        model (nn.Module): The backbone.
        checkpoint (str): File or address.
        prefix (str, optional): Prefix of the backbone's names as they stand in the checkpoint
            (:func:`mmdla.checkpoint.prefix.read_backbone`). Default: ``'backbone.'`` or none.
        map_location (str): Accepted as in MMEngine; tensors pass through the CPU.

    Returns:
        LoadReport: What happened; it is logged as well.

    Raises:
        CheckpointError: The checkpoint cannot be read or does not fit; the model is unchanged.
        TypeError: ``prefix`` is no string.
    """
    if not (prefix is None or isinstance(prefix, str)):
        raise TypeError(f'prefix must be a string or None, got {prefix!r}')
    state, left_out = read_backbone(checkpoint, prefix)
    count = len(state)
    state = to_our_names(state, avg_down=model.avg_down)
    if len(state) < count:
        raise CheckpointError(f'{checkpoint}: two of its names mean the same weight')
    state, idle, folded, bias_problems = take_biases(state, model)
    own = _own_and_optional(model, state)
    stem = _stem_of_other_images(state, own, model)
    left_out += idle + stem
    state = {name: v for name, v in state.items() if name not in stem}
    not_ours = [name for name in state if name not in own]
    missing = [name for name in own if name not in state]
    new = [name for name in missing if _may_be_new(name, model) or name in stem]
    missing = [name for name in missing if name not in new]
    spare_attention = _spare_attention(model)
    spare = [
        name
        for name in not_ours
        if _is_spare(name, model.num_stages) or name.startswith(spare_attention)
    ]
    if not missing:  # a whole ResNet, with heads of other kinds
        spare += [name for name in not_ours if name not in spare and not PARTS.match(name)]
    problems = listed(
        {
            'not in the model': [name for name in not_ours if name not in spare],
            'not in the checkpoint': missing,
            'biases of convolutions that the model does not have': bias_problems,
            **weight_problems(state, own),
        }
    )
    if stem and model.frozen_stages >= 0:
        problems.append(
            f'in_channels={own[stem[0]].shape[1]} leaves {stem[0]} new, and frozen_stages='
            f'{model.frozen_stages} would freeze it untrained (frozen_stages=-1 lets it learn)'
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
    if stem:
        print_log(
            f'{stem[0]} is new, not loaded: the model has in_channels={own[stem[0]].shape[1]}, '
            f'{checkpoint} has another number',
            logger='current',
            level=logging.WARNING,
        )
    report = LoadReport(
        checkpoint,
        list(loaded),
        [name for name in new if not name.endswith('num_batches_tracked')],
        left_out + spare,
        folded,
    )
    print_log(str(report), logger='current')
    return report


def _own_and_optional(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return what the model has, and what its attention can have besides and the checkpoint has."""
    own = model.state_dict()
    for i, stage in enumerate(model.stages):
        if stage.attention is None:
            continue
        for name in stage.attention.optional_parameters():
            full = f'layer{i + 1}.attention.{name}'
            if full in state:
                own.setdefault(full, stage.attention.optional_parameter(name))
            elif any(n.startswith(full.rpartition('.')[0] + '.') for n in state):
                own.pop(full, None)  # taken care of where it is loaded
    return own


def _stem_of_other_images(
    state: dict[str, Tensor], own: dict[str, Tensor], model: nn.Module
) -> list[str]:
    """Return the first convolution, if it is for images of another number of channels."""
    name = 'stem.0.weight' if model.deep_stem else 'conv1.weight'
    if name not in state or name not in own:
        return []
    theirs, ours = state[name].shape, own[name].shape
    fits = len(theirs) == len(ours) and theirs[0] == ours[0] and theirs[2:] == ours[2:]
    return [name] if fits and theirs[1] != ours[1] else []


def _is_attention(name: str) -> bool:
    return re.match(r'layer\d+\.attention\.', name) is not None


def _spare_attention(model: nn.Module) -> tuple[str, ...]:
    """Beginnings of names that a checkpoint's attention may have and the model's has no use for."""
    return tuple(
        f'layer{i + 1}.attention.{name}'
        for i, stage in enumerate(model.stages)
        if stage.attention is not None
        for name in stage.attention.spare_parameters()
    )


def _is_spare(name: str, num_stages: int) -> bool:
    """Return a classifier's layer, or a stage that the model does not have."""
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
