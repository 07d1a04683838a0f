"""Check that the classes of a config are a list of names, and that its heads predict as many."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.fileio import list_from_file
from mmengine.registry import DATASETS

from mmdla.config_types import resolve_type, type_name
from mmdla.datasets.data import joined_path
from mmdla.engine.config import register_host_modules
from mmdla.errors import InputError

# parts of a model whose classes are not those of the data
OTHERS = {'backbone', 'neck', 'rpn_head', 'semantic_head', 'language_model', 'reid', 'text_encoder'}
OTHER_TYPES = {'RPNHead', 'GARPNHead', 'CascadeRPNHead', 'FusedSemanticHead'}


def check_classes(cfg: Config, loaders: Iterable[str]) -> None:
    """Refuse classes that are no list of names, and heads for another number of classes.

    Folders of which each is a class may be part of a data set: of a head for more classes than
    there are folders it says so and goes on.

    Args:
        cfg (Config): A complete config.
        loaders (Iterable[str]): Keys of the dataloaders in use; the first one decides on the heads.

    Raises:
        InputError: Names the key of the config, its value and what it must be.
    """
    register_host_modules(cfg)
    found = None
    for loader in loaders:
        if cfg.get(loader) is not None:
            for key, dataset in _datasets(cfg[loader].dataset, f'{loader}.dataset'):
                classes = classes_of(cfg, dataset, key)
                if classes and not found:
                    found = key, classes, False
                elif not found and (folders := _folders(cfg, dataset)):
                    found = key, folders, True
    if found:
        _check_heads(cfg, *found)


def classes_of(cfg: Config, dataset: dict, key: str = 'dataset') -> tuple[str, ...] | None:
    """Return the classes of a data set, or ``None`` if only the data set itself can know them.

    Args:
        cfg (Config): A complete config.
        dataset (dict): One of its data sets.
        key (str): Where it is in the config, for the message.

    Raises:
        InputError: They are no list of names.
    """
    metainfo = dataset.get('metainfo') or {}
    if 'CLASSES' in metainfo and 'classes' not in metainfo:
        raise InputError(
            f"{key}.metainfo.CLASSES is not read, it is called 'classes': "
            f'metainfo=dict(classes={metainfo["CLASSES"]!r})'
        )
    classes, where = metainfo.get('classes'), f'{key}.metainfo.classes'
    if classes is None and dataset.get('classes') is not None:  # of MMPretrain's data sets
        classes, where = dataset['classes'], f'{key}.classes'
    kind = resolve_type(dataset['type'], DATASETS, cfg.get('default_scope'))
    if classes is None:
        meta = getattr(kind, 'METAINFO', None) or {}
        if 'thing_classes' in meta or 'THING_CLASSES' in meta:
            return None  # heads of panoptic models count things and stuff apart
        return tuple(meta['classes']) if meta.get('classes') else None
    if isinstance(classes, str):
        if not os.path.isfile(classes):
            raise InputError(
                f'{where} must be a list of names or a file with one name a line, got the string '
                f'{classes!r}: one class is written with a comma, ({classes!r},)'
            )
        classes = list_from_file(classes)
    names = list(classes) if isinstance(classes, (list, tuple)) else None
    if not names or not all(isinstance(name, str) for name in names):
        raise InputError(f'{where} must be a list of names, got {classes!r}')
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f'{where} has {", ".join(map(repr, sorted(twice)))} more than once')
    return tuple(names)


def _datasets(dataset: dict, key: str) -> Iterator[tuple[str, dict]]:
    """Yield the data sets inside of wrappers, with where they are in the config."""
    for inner in ('datasets', 'dataset'):
        value = dataset.get(inner)
        if isinstance(value, (list, tuple)):
            for i, one in enumerate(value):
                yield from _datasets(one, f'{key}.{inner}.{i}')
            return
        if value is not None:
            yield from _datasets(value, f'{key}.{inner}')
            return
    yield key, dataset


def _folders(cfg: Config, dataset: dict) -> tuple[str, ...] | None:
    """Return the classes of MMPretrain's data sets that are folders, one for each class."""
    kind = resolve_type(dataset['type'], DATASETS, cfg.get('default_scope'))
    if type_name(kind) != 'CustomDataset' or dataset.get('ann_file'):
        return None
    prefix = dataset.get('data_prefix') or ''
    prefix = prefix.get('img_path', '') if isinstance(prefix, dict) else prefix
    folder = joined_path(dataset, prefix)
    if folder is None or not os.path.isdir(folder):
        return None
    return tuple(sorted(path.name for path in Path(folder).iterdir() if path.is_dir())) or None


def _check_heads(cfg: Config, key: str, classes: tuple[str, ...], maybe_part: bool) -> None:
    if _is_open_vocabulary(cfg.get('model')):
        return
    wrong = [
        f'{name}={value}'
        for name, value in [
            *_num_classes(cfg.get('model'), 'model'),
            *_num_classes(cfg.get('data_preprocessor'), 'data_preprocessor'),
        ]
        if value != len(classes)
    ]
    if not wrong:
        return
    some = ', '.join(map(repr, classes[:4])) + ', ...' * (len(classes) > 4)
    if maybe_part and not any(int(entry.split('=')[1]) < len(classes) for entry in wrong):
        print(f'{", ".join(wrong)}, but {key} has {len(classes)} folders ({some})', flush=True)
        return
    raise InputError(
        f'{", ".join(wrong)}: must be {len(classes)}, the number of the classes of {key} '
        f'({some}; metainfo.classes names others)'
    )


def _is_open_vocabulary(model: Any) -> bool:
    """Return whether a model gets the names of the classes as text: its heads count words."""
    return isinstance(model, dict) and ('language_model' in model or 'text_encoder' in model)


def _num_classes(part: Any, name: str) -> Iterator[tuple[str, int]]:
    """Every ``num_classes`` of a head in a model, with where it is in the config."""
    if isinstance(part, (list, tuple)):
        for i, one in enumerate(part):
            yield from _num_classes(one, f'{name}.{i}')
    elif isinstance(part, dict) and type_name(part.get('type')) not in OTHER_TYPES:
        if isinstance(part.get('num_classes'), int):
            yield f'{name}.num_classes', part['num_classes']
        for key, value in part.items():
            if key not in OTHERS:
                yield from _num_classes(value, f'{name}.{key}')
