"""Finding out which released model a checkpoint is, from its names and shapes alone."""

import re
from collections import Counter
from dataclasses import asdict, dataclass, field

from torch import Tensor, nn

from .check import listed, weight_problems
from .errors import CheckpointError, some
from .names import select_backbone
from .recognise_options import OPTIONS
from .released import convert_released
from .vit import convert_vit_checkpoint, is_released_vit

# What tells an attention: the first pattern that a name matches.
SIGNS = (
    (r'layer1\.attention\.extract\.weight', 'DLALight'),
    (r'layer1\.attention\.blocks\.0\.lambda_', 'MRLALight'),
    (r'layer1\.attention\.blocks\.0\.mix\.weight', 'KCLA'),
    (r'layer1\.attention\.blocks\.0\.query\.weight', 'MRLABase'),
    (r'layer1\.attention\.blocks\.0\.0\.weight', 'SE'),
    (r'layer1\.attention\.blocks\.0\.conv\.weight', 'ECA'),
    (r'layer1\.attention\.dsu\.from_y\.0\.weight', 'DIALSTM'),
    (r'layer1\.attention\.recurrent\.weight', 'RLA'),
)
HEAD = {'fc.weight': 'head.fc.weight', 'fc.bias': 'head.fc.bias'}


@dataclass(frozen=True)
class Release:
    """A released model.

    Attributes:
        depth (int): Layers.
        block (str): ``'bottleneck'`` or ``'basic'``.
        cifar (bool): A CIFAR network, three stages behind a 3x3 stem.
        deep_stem (bool): Three convolutions in the stem.
        attention (str, optional): Type of the layer attention.
        reduction (int, optional): Its reduction.
        num_classes (int, optional): Classes of the linear head, None where there is none.
        options (dict): Other arguments of the layer attention.
    """

    depth: int
    block: str
    cifar: bool
    deep_stem: bool
    attention: str | None
    reduction: int | None
    num_classes: int | None
    options: dict = field(default_factory=dict)

    def __str__(self) -> str:
        kind = 'CIFAR ResNet' if self.cifar else 'ResNet'
        reduction = f', reduction {self.reduction}' if self.reduction else ''
        options = ''.join(f', {name} {value}' for name, value in self.options.items())
        head = f', {self.num_classes} classes' if self.num_classes else ', no classifier'
        attention = self.attention or 'no layer attention'
        return f'{kind}-{self.depth} ({self.block} blocks), {attention}{reduction}{options}{head}'

    def backbone_cfg(self) -> dict:
        """Config of the backbone."""
        attention = self.attention and dict(type=self.attention, **self.options)
        if self.reduction:
            attention['reduction'] = self.reduction
        if self.cifar:
            return dict(
                type='mmdla.DLAResNet_CIFAR',
                depth=self.depth,
                block=self.block,
                layer_attention=attention,
            )
        return dict(
            type='mmdla.DLAResNet',
            depth=self.depth,
            deep_stem=self.deep_stem,
            layer_attention=attention,
        )


def convert_checkpoint(state: dict[str, Tensor]) -> tuple[Release, dict[str, Tensor]]:
    """Turn a released classifier, backbone or detector into ours.

    Args:
        state (dict): A state dict, as :func:`read_state_dict` gives it.

    Returns:
        tuple[Release, dict]: What it is, and its tensors under the names of an MMPretrain
        classifier or MMDetection detector with our backbone (``backbone.…``, ``head.fc.…``).

    Raises:
        CheckpointError: It is none of the released models, or some of its names or shapes are not.
    """
    if is_released_vit(state):
        return convert_vit_checkpoint(state)
    backbone, others = select_backbone(state)
    backbone = convert_released(backbone)
    head = {HEAD[name]: backbone.pop(name) for name in HEAD if name in backbone}
    release = recognise(backbone, head)
    compare(backbone, build(release))
    broken = [
        name for name, v in head.items() if not (v.is_floating_point() and v.isfinite().all())
    ]
    if broken:
        raise CheckpointError(f'not a released model: no finite numbers in {some(broken)}')
    converted = {f'backbone.{name}': v for name, v in backbone.items()}
    return release, converted | head | {name: state[name] for name in others}


def recognise(backbone: dict[str, Tensor], head: dict[str, Tensor]) -> Release:
    """Return which model these names and shapes, already under our names, belong to."""
    blocks = Counter(
        match[1] for name in backbone if (match := re.match(r'layer(\d)\.\d+\.conv1\.weight', name))
    )
    stem = backbone.get('conv1.weight', backbone.get('stem.0.weight'))
    if stem is None or not blocks:
        raise CheckpointError(
            f'not a released model: no ResNet in it, its names begin {some(list(backbone), 4)}'
        )
    bottleneck = 'layer1.0.conv3.weight' in backbone
    cifar, attention = len(blocks) == 3, _attention(backbone)
    return Release(
        depth=(3 if bottleneck else 2) * sum(blocks.values()) + 2,
        block='bottleneck' if bottleneck else 'basic',
        cifar=cifar,
        deep_stem='stem.0.weight' in backbone,
        attention=attention,
        reduction=_reduction(backbone, len(blocks)),
        num_classes=_num_classes(head),
        options=OPTIONS[attention](backbone, cifar) if attention in OPTIONS else {},
    )


def _num_classes(head: dict[str, Tensor]) -> int | None:
    if not head:
        return None
    weight, bias = head.get('head.fc.weight'), head.get('head.fc.bias')
    if weight is None or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        shapes = {name: tuple(v.shape) for name, v in head.items()}
        raise CheckpointError(f'not a released model: no linear classifier has {shapes}')
    return len(weight)


def _attention(backbone: dict[str, Tensor]) -> str | None:
    kind = next((k for sign, k in SIGNS if any(re.fullmatch(sign, n) for n in backbone)), None)
    has_unit = any('.attention.dsu.' in name for name in backbone)
    return 'DLABase' if kind == 'MRLABase' and has_unit else kind


def _reduction(backbone: dict[str, Tensor], stages: int) -> int | None:
    """Return the reduction that explains the squeezed widths of all stages."""
    names = ('attention.dsu.from_y.0.weight', 'attention.blocks.0.0.weight')
    squeezes = [
        backbone[f'layer{i}.{name}'].shape[::-1]  # channels, squeezed
        for i in range(1, stages + 1)
        for name in names
        if f'layer{i}.{name}' in backbone
    ]
    if not squeezes:
        return None
    if any(len(squeeze) != 2 for squeeze in squeezes):
        raise CheckpointError(f'no squeezes have the shapes {[tuple(s) for s in squeezes]}')
    channels, _ = squeezes[0]
    for reduction in range(1, channels + 1):
        if all(c // reduction == squeezed for c, squeezed in squeezes):
            return reduction
    raise CheckpointError(f'no reduction explains the squeezes {[tuple(s) for s in squeezes]}')


def build(release: Release) -> nn.Module:
    """Return the recognised backbone."""
    from mmengine.registry import MODELS  # the models import this package

    try:
        return MODELS.build(release.backbone_cfg())
    except (ValueError, TypeError) as error:
        raise CheckpointError(f'recognised {release}, which cannot be: {error}') from error


def compare(backbone: dict[str, Tensor], model: nn.Module) -> None:
    """Refuse names and shapes that are not the model's, all of them at once."""
    own = model.state_dict()
    problems = {
        'unknown names': [n for n in backbone if n not in own],
        'missing names': [n for n in own if n not in backbone],
        **weight_problems(backbone, own),
    }
    found = listed(problems)
    if found:
        raise CheckpointError('not a released model:\n  ' + '\n  '.join(found))


def describe(release: Release) -> dict:
    """Return the release as plain values, for a checkpoint's ``meta``."""
    return asdict(release)
