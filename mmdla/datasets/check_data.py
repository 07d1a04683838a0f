"""Check the annotations and images that a config uses."""

import os
from collections.abc import Iterable, Iterator

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from mmdla.config_types import resolve_type, type_name
from mmdla.datasets.annotations import Use, check_content, read_json
from mmdla.datasets.data import data_paths, datasets_of, joined_path
from mmdla.datasets.images import check_images
from mmdla.engine.config import register_host_modules
from mmdla.errors import InputError

SECONDS = 5.0  # for the images of one annotation file, before a training


def check_annotations(cfg: Config, loaders: Iterable[str], seconds: float | None = SECONDS) -> None:
    """Read every COCO annotation file once and refuse what training or testing would stumble over.

    Says in a line per file what is in it and what is left out of it.

    Args:
        cfg (Config): A complete config.
        loaders (Iterable[str]): Keys of the dataloaders in use.
        seconds (float, optional): Time for the images of a file. Default: as long as it takes.

    Raises:
        InputError: Lists all the problems with the first entries of each.
    """
    messages = []
    for use in uses_of(cfg, loaders):
        content = read_json(use.path)
        found = check_content(content, use)
        if use.folder is not None and not found.counts:
            check_images(content['images'], use.folder, found, seconds)
        del content
        if message := found.error():
            messages.append(message)
        else:
            print(found.summary())  # before there is a runner with its log
    if messages:
        raise InputError('\n'.join(messages))


def uses_of(cfg: Config, loaders: Iterable[str]) -> list[Use]:
    """Annotation files in COCO's format that dataloaders and their evaluators read."""
    loaders = list(loaders)
    if cfg.get('default_scope') != 'mmdet':
        return []
    register_host_modules(cfg)
    uses: dict[str, Use] = {}
    for name in loaders:
        loader = cfg.get(name)
        for dataset in datasets_of(loader.dataset) if loader is not None else ():
            use = _use_of(dataset)
            if use is None:
                continue
            other = uses.get(use.path)
            if other is not None:  # the same file for two purposes
                use = use._replace(
                    trains=use.trains or other.trains, masks=use.masks or other.masks
                )
            uses[use.path] = use
        if name.replace('dataloader', 'evaluator') in cfg and uses:
            classes = list(uses.values())[-1].classes
            for path in data_paths(cfg, [name]):
                if path.kind == 'CocoMetric' or path.path.endswith('.json'):
                    uses.setdefault(path.path, Use(path.path, classes=classes))
    return list(uses.values())


def _use_of(dataset: dict) -> Use | None:
    """Return what a data set of a config reads, or ``None`` if it does not read COCO's format."""
    from mmdet.datasets import CocoDataset

    kind = resolve_type(dataset['type'], DATASETS, 'mmdet')
    if not (isinstance(kind, type) and issubclass(kind, CocoDataset)):
        return None
    for method in ('load_data_list', 'parse_data_info'):
        if getattr(kind, method) is not getattr(CocoDataset, method):
            return None
    annotations, folder = dataset.get('ann_file'), (dataset.get('data_prefix') or {}).get('img', '')
    path, folder = joined_path(dataset, annotations or ''), joined_path(dataset, folder)
    if not annotations or path is None:
        return None
    classes = (dataset.get('metainfo') or {}).get('classes') or kind.METAINFO.get('classes')
    if isinstance(classes, str) and os.path.isfile(classes):  # one name a line
        classes = list_from_file(classes)
    return Use(
        path,
        folder,
        tuple(classes) if isinstance(classes, (list, tuple)) else None,
        trains=not dataset.get('test_mode', False),
        masks=any(_loads_masks(step) for step in _steps(dataset.get('pipeline') or ())),
    )


def _steps(pipeline: Iterable) -> Iterator[dict]:
    for step in pipeline:
        if isinstance(step, dict):
            yield step
            yield from _steps(step.get('transforms') or ())
        elif isinstance(step, (list, tuple)):
            yield from _steps(step)


def _loads_masks(step: dict) -> bool:
    return type_name(step.get('type')).endswith('LoadAnnotations') and bool(step.get('with_mask'))
