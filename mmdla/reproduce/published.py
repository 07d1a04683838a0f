"""Published results of neighbours, read from the model indexes of the installed host libraries."""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import yaml

from .tables import BOX, MASK, TOP1, TOP5

# names of our metrics in the host libraries' indexes
LABELS = {'box AP': BOX.label, 'mask AP': MASK.label}
LABELS |= {'Top 1 Accuracy': TOP1.label, 'Top 5 Accuracy': TOP5.label}
# table: (library, model index under its configs, models). CIFAR has none: the ResNets that
# MMPretrain trained on it have 11 to 58 million parameters, the networks here 0.2 to 1.4.
NEIGHBOURS = dict(
    coco=(
        ('mmdet', 'faster_rcnn', ('faster-rcnn_r50_fpn_1x_coco', 'faster-rcnn_r101_fpn_1x_coco')),
        ('mmdet', 'retinanet', ('retinanet_r50_fpn_1x_coco', 'retinanet_r101_fpn_1x_coco')),
    ),
    coco_masks=(
        ('mmdet', 'mask_rcnn', ('mask-rcnn_r50_fpn_1x_coco', 'mask-rcnn_r101_fpn_1x_coco')),
        (
            'mmdet',
            'gcnet',
            ('mask-rcnn_r50_fpn_r16_gcb_c3-c5_1x_coco', 'mask-rcnn_r101-gcb-r16-c3-c5_fpn_1x_coco'),
        ),
    ),
    imagenet=(
        ('mmpretrain', 'resnet', ('resnet50_8xb32_in1k', 'resnet101_8xb32_in1k')),
        ('mmpretrain', 'seresnet', ('seresnet50_8xb32_in1k', 'seresnet101_8xb32_in1k')),
    ),
)


@dataclass(frozen=True)
class Published:
    """A result of somebody else's.

    Args:
        name (str): Of the model.
        values (dict[str, float]): By label of the metric.
        source (str): Library, version and file that says so.
        memory (float, optional): GB a GPU in training, as stated there.
    """

    name: str
    values: dict[str, float]
    source: str
    memory: float | None = None


def neighbours(table: str) -> list[Published]:
    """What the installed libraries say; nothing of a library that is not there."""
    found = []
    for library, folder, names in NEIGHBOURS.get(table, ()):
        index = f'configs/{folder}/metafile.yml'
        models = read_index(library, index)
        for name in names:
            if name in models:
                found.append(_published(models[name], f'{library} {_version(library)}, {index}'))
    return found


@cache
def read_index(library: str, path: str) -> dict[str, dict]:
    """Models of an index by name."""
    spec = find_spec(library)
    if spec is None:
        return {}
    file = Path(spec.origin).parent / '.mim' / path
    if not file.is_file():
        return {}
    return {model['Name']: model for model in yaml.safe_load(file.read_text())['Models']}


def _published(model: dict, source: str) -> Published:
    metrics: dict[str, float] = {}
    for result in model['Results']:
        metrics.update(result['Metrics'])
    values = {LABELS[key]: float(value) for key, value in metrics.items() if key in LABELS}
    memory = (model.get('Metadata') or {}).get('Training Memory (GB)')
    return Published(model['Name'], values, source, memory)


def _version(library: str) -> str:
    return import_module(library).__version__
