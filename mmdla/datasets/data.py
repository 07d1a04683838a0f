"""Check before training that the files and folders a config names are there."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdla.config_types import type_name
from mmdla.errors import InputError

COCO_HINT = (
    'COCO 2017 is at https://cocodataset.org/#download: train2017.zip, val2017.zip and '
    'annotations_trainval2017.zip.'
)
IMAGENET_HINT = (
    'ImageNet has one folder for every class in each split, e.g. train/n01440764/, '
    'val/n01440764/ (or the images of all classes and a list: meta/val.txt).'
)
CIFAR_FOLDERS = dict(CIFAR10='cifar-10-batches-py', CIFAR100='cifar-100-python')


@dataclass(frozen=True)
class DataPath:
    """A file or folder that a config expects.

    Args:
        root (str): ``data_root`` of its data set, as the config has it.
        path (str): The file or folder itself.
        is_folder (bool): Whether it is a folder (of images) or a file (of annotations).
        kind (str): Type of the data set.
    """

    root: str
    path: str
    is_folder: bool
    kind: str

    @property
    def exists(self) -> bool:
        return os.path.isdir(self.path) if self.is_folder else os.path.isfile(self.path)


def data_paths(cfg: Config, loaders: Iterable[str]) -> list[DataPath]:
    """Files and folders on disk that dataloaders and their evaluators will read.

    Args:
        cfg (Config): A complete config.
        loaders (Iterable[str]): Keys of dataloaders, e.g. ``'train_dataloader'``.
    """
    paths: list[DataPath] = []
    for name in loaders:
        loader = cfg.get(name)
        if loader is not None:
            for dataset in datasets_of(loader.dataset):
                paths += _of_dataset(dataset)
        evaluators = cfg.get(name.replace('dataloader', 'evaluator')) or ()
        for metric in [evaluators] if isinstance(evaluators, dict) else evaluators:
            paths += _of_metric(metric, paths)
    return [p for p in dict.fromkeys(paths) if '://' not in p.path]


def check_data(cfg: Config, loaders: Iterable[str]) -> None:
    """Refuse a config whose data are not there.

    Raises:
        InputError: Names what is missing and draws the layout that the config expects.
    """
    paths = data_paths(cfg, loaders)
    messages = []
    for root in dict.fromkeys(p.root for p in paths):
        of_root = [p for p in paths if p.root == root]
        missing = [p for p in of_root if not p.exists]
        if missing:
            messages.append(_describe(root, of_root, missing))
    if messages:
        raise InputError('\n\n'.join(messages))


def datasets_of(dataset: dict) -> Iterator[dict]:
    """Yield the data sets inside of wrappers such as ``ConcatDataset`` and ``RepeatDataset``."""
    inner = dataset.get('datasets') or dataset.get('dataset')
    if inner is None:
        yield dataset
    else:
        for one in inner if isinstance(inner, (list, tuple)) else [inner]:
            yield from datasets_of(one)


def _of_dataset(dataset: dict) -> list[DataPath]:
    kind = type_name(dataset['type'])
    root = dataset.get('data_root') or ''
    if not _is_local(dataset):
        return []
    prefixes = dataset.get('data_prefix') or {}
    prefixes = list(prefixes.values()) if isinstance(prefixes, dict) else [prefixes]
    annotation = dataset.get('ann_file')
    if kind in CIFAR_FOLDERS:
        # the host library fetches it unless it is told not to
        prefixes = [] if dataset.get('download', True) else [CIFAR_FOLDERS[kind]]
    elif kind == 'ImageNet' and not prefixes and dataset.get('split'):
        prefixes = [dataset['split']]

    def path(relative: str, is_folder: bool) -> DataPath:
        joined = _joined(root, relative)
        return DataPath(_root_for(joined, root), joined, is_folder, kind)

    # DOTA's annotations are a folder, written with a slash at its end
    paths = [path(annotation, annotation.endswith('/'))] if annotation else []
    return paths + [path(prefix, True) for prefix in prefixes if isinstance(prefix, str)]


def joined_path(dataset: dict, relative: str) -> str | None:
    """Return a path of a data set under its root, or ``None`` if that is not on disk."""
    path = _joined(dataset.get('data_root') or '', relative)
    return path if _is_local(dataset) and '://' not in path else None


def _is_local(dataset: dict) -> bool:
    return (dataset.get('backend_args') or {}).get('backend', 'local') == 'local'


def _joined(root: str, relative: str) -> str:
    joined = os.path.join(root, relative)
    return joined if '://' in joined else os.path.normpath(joined)


def _of_metric(metric: dict, of_datasets: list[DataPath]) -> list[DataPath]:
    annotation = metric.get('ann_file')
    if not annotation:
        return []
    if '://' not in annotation:
        annotation = os.path.normpath(annotation)
    for p in of_datasets:
        if is_inside(annotation, p.root):
            return [DataPath(p.root, annotation, False, p.kind)]
    return [DataPath(os.path.dirname(annotation), annotation, False, type_name(metric['type']))]


def _root_for(path: str, root: str) -> str:
    """``root``, or the folder of a ``path`` that lies outside of it."""
    return root if is_inside(path, root) else os.path.dirname(path)


def is_inside(path: str, folder: str) -> bool:
    return not os.path.relpath(path, folder or '.').startswith('..')


def _describe(root: str, paths: list[DataPath], missing: list[DataPath]) -> str:
    kinds = {p.kind for p in paths}
    count = f'{len(missing)} of {len(paths)} files and folders are missing'
    lines = [f'the data are not there: {count} in {os.path.abspath(root)}. The config expects:', '']
    lines += [*draw_tree(root, paths), '']
    if 'CocoDataset' in kinds and any('2017' in p.path for p in missing):
        lines.append(COCO_HINT)
    if 'ImageNet' in kinds:
        lines.append(IMAGENET_HINT)
    if not os.path.lexists(root):
        folder = Path(root)
        link = f'mkdir -p {folder.parent} && ln -s /path/to/it {folder}'
        lines.append(f'A data set that lies elsewhere can be linked: {link}')
    return '\n'.join(lines)


def draw_tree(root: str, paths: Iterable[DataPath]) -> list[str]:
    """Lines that draw the layout of ``paths`` under ``root`` and mark what is missing."""
    tree: dict = {}
    for p in paths:
        node = tree
        parts = Path(os.path.relpath(p.path, root or '.')).parts
        for part in parts[:-1]:
            node = node.setdefault(f'{part}/', {})
        if parts:
            name = parts[-1] + ('/' if p.is_folder else '')
            node.setdefault(name + ('' if p.exists else '   <- missing'), {})
    missing_root = '' if os.path.isdir(root or '.') else '   <- missing'
    return [f'{Path(root)}/{missing_root}', *_branches(tree)]


def _branches(tree: dict, indent: str = '') -> Iterator[str]:
    for i, (name, children) in enumerate(sorted(tree.items())):
        is_last = i == len(tree) - 1
        yield f'{indent}{"└──" if is_last else "├──"} {name}'
        yield from _branches(children, indent + ('    ' if is_last else '│   '))
