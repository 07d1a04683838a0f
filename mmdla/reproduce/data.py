"""Whether the data sets of the tables are there, whole, in the layout that the configs expect."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from mmdla.datasets.data import CIFAR_FOLDERS, COCO_HINT, IMAGENET_HINT, check_data
from mmdla.errors import InputError

from .tables import LOADERS, Table

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.ppm', '.pgm', '.tif')
CLASSES = dict(imagenet=1000, digits=10, short_cifar10=10)
HINTS = dict(
    coco=COCO_HINT,
    coco_masks=COCO_HINT,
    imagenet=IMAGENET_HINT,
    nuclei=(
        'The images are those of stage 1 of the Data Science Bowl 2018 (Kaggle; Broad Bioimage '
        'Benchmark Collection, BBBC038), with the public corrections of its masks, in the COCO '
        'layout; docs/results.md says which.'
    ),
    bccd='BCCD is the repository Shenggan/BCCD_Dataset on GitHub; docs/results.md has the layout.',
    short_cifar10=(
        'CIFAR-10 is on https://www.cs.toronto.edu/~kriz/cifar.html; docs/results.md has the '
        'layout of its images in class folders.'
    ),
    digits='python projects/demo/digits.py fetches and lays out the digits.',
)
BLOCK = 2**24  # bytes read at once


def check_table_data(table: Table, cfg: Config, may_download: bool = False) -> None:
    """Refuse data that are missing, or that are not as many as were published.

    Args:
        table (Table): The table.
        cfg (Config): Config of one of its rows, with the user's options.
        may_download (bool): Accept that a data set is missing which the host library downloads
            when training starts (CIFAR).

    Raises:
        InputError: Names what is missing or differs, and says how to lay it out.
    """
    check_data(cfg, LOADERS)
    problems = []
    for loader in LOADERS:
        dataset = cfg[loader].dataset
        part = loader.removesuffix('_dataloader')
        if (dataset.get('backend_args') or {}).get('backend', 'local') == 'local':
            problems += COUNTERS[dataset.type](table, part, dataset, may_download)
    if problems:
        hint = HINTS.get(table.name)
        raise InputError(
            '\n'.join(['not the published data:', *dict.fromkeys(problems), *filter(None, [hint])])
        )


def _coco(table: Table, part: str, dataset: ConfigDict, _) -> Iterator[str]:
    annotations = Path(dataset.data_root, dataset.ann_file)
    count, complete = count_images(annotations)
    yield from _compare(f'{annotations}: images in it', count, table.images[part])
    if not complete:
        yield f'- {annotations}: it ends in the middle, the file is not whole'
    folder = Path(dataset.data_root, dataset.data_prefix.img)
    expected = table.in_folder or table.images[part]
    yield from _compare(f'{folder}: images', count_image_files(folder), expected)


def _folders(table: Table, part: str, dataset: ConfigDict, _) -> Iterator[str]:
    prefix = dataset.get('data_prefix') or dataset.get('split') or ''
    folder = Path(dataset.data_root, prefix)
    if not folder.is_dir():
        yield f'- {folder}: no such folder'
        return
    entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
    listed = dataset.get('ann_file') or f'meta/{dataset.get("split", part)}.txt'
    if not entries and Path(dataset.data_root, listed).is_file():
        entries = [folder]  # the images of all classes, and a list of their labels
        lines = Path(dataset.data_root, listed).read_text().split('\n')
        count = sum(bool(line.strip()) for line in lines)
        name = f'{Path(dataset.data_root, listed)}: lines'
        yield from _compare(name, count, table.images[part])
    else:
        name = f'{folder}: folders, one for each class'
        yield from _compare(name, len(entries), CLASSES[table.name])
    images = sum(count_image_files(Path(entry)) for entry in entries)
    yield from _compare(f'{folder}: images', images, table.images[part])


def _cifar(table: Table, part: str, dataset: ConfigDict, may_download: bool) -> Iterator[str]:
    """Through the host's class, which compares the digests of the files."""
    from mmpretrain.registry import DATASETS

    wanted = {**dataset, 'download': False, 'pipeline': []}
    folder = Path(dataset.data_root, CIFAR_FOLDERS[dataset.type])
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        host = DATASETS.get(dataset.type)
        try:
            read = DATASETS.build(wanted)
        except (RuntimeError, AssertionError):
            if may_download and not folder.exists():
                print(f'{folder} is not there, it will be downloaded from {host.url}', flush=True)
                return
            yield (
                f'- {folder}: not there or not whole. Training downloads it from {host.url}; '
                f'without a network, put {host.filename} into {folder.parent} and unpack it there '
                f'(tar -xf {host.filename})'
            )
            return
    yield from _compare(f'{folder}: images to {part}', len(read), table.images[part])


COUNTERS: dict[str, Callable[..., Iterator[str]]] = dict(
    CocoDataset=_coco, ImageNet=_folders, CustomDataset=_folders, CIFAR10=_cifar, CIFAR100=_cifar
)


def _compare(what: str, found: int, expected: int) -> Iterator[str]:
    if found != expected:
        yield f'- {what}: {found}, expected {expected}'


def count_image_files(folder: Path) -> int:
    """Image files in a folder."""
    with os.scandir(folder) as entries:
        return sum(entry.name.lower().endswith(IMAGES) for entry in entries)


def count_images(annotations: Path) -> tuple[int, bool]:
    """Images of a COCO annotation file, and whether it ends as JSON does.

    Each image, and nothing else, has a ``"file_name"`` there. The file is not parsed, which takes
    half a minute and some gigabytes.
    """
    word, count, rest = b'"file_name"', 0, b''
    with open(annotations, 'rb') as file:
        while block := file.read(BLOCK):
            text = rest + block
            count += text.count(word)
            rest = text[-len(word) + 1 :]
    return count, rest.rstrip().endswith(b'}')
