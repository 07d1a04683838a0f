"""The tables that can be reproduced, from the model index and the configs."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from mmengine.config import Config, DictAction

from mmdla.engine.config import apply_options, set_classification_defaults
from mmdla.errors import InputError

LOADERS = ('train_dataloader', 'val_dataloader')
CIFAR_DEPTHS = (20, 56, 110)


@dataclass(frozen=True)
class Metric:
    """A number of a table.

    Args:
        key (str): Its name in MMEngine's log.
        label (str): Its name in the table.
        factor (float): From the log's unit to per cent.
    """

    key: str
    label: str
    factor: float = 1


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Args:
        name (str): Of the row and of its folder.
        config (str): Config file, relative to the repository.
        options (tuple[str]): What goes behind ``--cfg-options`` to make the model of the config.
        keeps_predictions (bool): Whether what a detector finds in the last validation is kept, for
            the comparison over images.
    """

    name: str
    config: str
    options: tuple[str, ...] = ()
    keeps_predictions: bool = False


@dataclass(frozen=True)
class Table:
    """Models that are trained on the same data.

    Args:
        name (str): For the command line.
        title (str): For people.
        metrics (tuple[Metric]): What is reported, the most important one first.
        images (Mapping[str, int]): Size of the ``'train'`` and of the ``'val'`` part.
        seeds (tuple[int]): Seeds that are run unless others are asked for.
        rows (tuple[Row]): The models.
        size (tuple[int, int], optional): Height and width of an image in training, for counts.
            Default: that of the kind of model (:func:`mmdla.analysis.complexity.measure`).
        in_folder (int, optional): Images in a folder that all parts share.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    images: Mapping[str, int]
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    size: tuple[int, int] | None = None
    in_folder: int | None = None

    @property
    def is_small(self) -> bool:
        """Whether one process trains a row, without a GPU."""
        return self.name in SMALL


BOX = Metric('coco/bbox_mAP', 'box AP', 100)
BOX50 = Metric('coco/bbox_mAP_50', 'box AP50', 100)
MASK = Metric('coco/segm_mAP', 'mask AP', 100)
TOP1 = Metric('accuracy/top1', 'top-1, %')
TOP5 = Metric('accuracy/top5', 'top-5, %')
COCO = dict(train=118287, val=5000)
IMAGENET = dict(train=1281167, val=50000)
CIFAR = dict(train=50000, val=10000)
DIGIT_PARTS = dict(train=1000, val=4000)
DIGITS = ('plain', 'mrla_l', 'dla_l', 'dla_b')
# the control is a plain network of the size of DLA-L's
COMPARED = ('plain', 'deeper', 'mrla_l', 'dla_l', 'dla_b', 'se', 'eca', 'mrla_b')


def _small_rows(prefix: str, *models: str) -> tuple[Row, ...]:
    return tuple(
        Row(f'{prefix}_{model}', f'configs/{prefix}_{model}.py', keeps_predictions=True)
        for model in models
    )


# name: (data set and task in the model index, title, metrics, images, seeds)
KINDS = dict(
    coco=(('COCO', 'Object Detection'), 'COCO 2017, detection', (BOX,), COCO, (0,)),
    coco_masks=(
        ('COCO', 'Instance Segmentation'),
        'COCO 2017, instance segmentation',
        (BOX, MASK),
        COCO,
        (0,),
    ),
    imagenet=(
        ('ImageNet-1k', 'Image Classification'),
        'ImageNet-1k, classification',
        (TOP1, TOP5),
        IMAGENET,
        (0,),
    ),
    cifar10=(('CIFAR-10', 'Image Classification'), 'CIFAR-10', (TOP1,), CIFAR, (0, 1, 2)),
    cifar100=(('CIFAR-100', 'Image Classification'), 'CIFAR-100', (TOP1,), CIFAR, (0, 1, 2)),
)
# those that a CPU core trains
SMALL = dict(
    digits=Table(
        'digits',
        'Digits (4,000 held-out ones of MNIST, 1,000 to learn from)',
        (TOP1,),
        DIGIT_PARTS,
        (0, 1, 2),
        tuple(Row(model, f'configs/demo_digits_{model}.py') for model in DIGITS),
    ),
    short_cifar10=Table(
        'short_cifar10',
        'CIFAR-10 from images in class folders, 6 epochs',
        (TOP1,),
        CIFAR,
        (0, 1, 2),
        tuple(Row(f'short_cifar10_{m}', f'configs/short_cifar10_{m}.py') for m in DIGITS),
    ),
    nuclei=Table(
        'nuclei',
        'Nuclei (Data Science Bowl 2018, stage 1), Mask R-CNN from random weights',
        (BOX, BOX50, MASK),
        dict(train=503, val=138),
        (0, 1, 2),
        _small_rows('nuclei', *COMPARED),
        size=(256, 256),
        in_folder=641,
    ),
    bccd=Table(
        'bccd',
        'Blood cells (BCCD, test part), Faster R-CNN from random weights',
        (BOX, BOX50),
        dict(train=205, val=72),
        (0, 1, 2),
        _small_rows('bccd', *COMPARED),
        size=(240, 320),
        in_folder=364,
    ),
)
NAMES = (*KINDS, *SMALL)


def read_table(name: str, root: Path) -> Table:
    """A table by its name, from ``configs/`` and ``configs/metafile.yml`` under ``root``."""
    if name in SMALL:
        return SMALL[name]
    task, title, *rest = KINDS[name]
    index = yaml.safe_load((root / 'configs' / 'metafile.yml').read_text())
    rows = []
    for model in index['Models']:
        (result,) = model['Results']
        if (result['Dataset'], result['Task']) == task:
            rows += _rows(name, model['Name'], model['Config'])
    return Table(name, title, *rest, tuple(rows))


def _rows(table: str, name: str, config: str) -> list[Row]:
    if not table.startswith('cifar'):
        return [Row(name, config)]
    return [Row(f'{name}-{n}', config, (f'model.backbone.depth={n}',)) for n in CIFAR_DEPTHS]


def row_config(row: Row, root: Path, options: tuple[str, ...] = ()) -> Config:
    """The config of a row as ``tools/train.py`` makes it of the row's and other ``options``.

    Raises:
        InputError: An option leads nowhere.
    """
    cfg = Config.fromfile(root / row.config)
    apply_options(cfg, parse_options((*row.options, *options)))
    set_classification_defaults(cfg, LOADERS)
    return cfg


def parse_options(options: tuple[str, ...]) -> dict:
    """``KEY=VALUE`` texts as the command line's ``--cfg-options`` reads them."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction)
    try:
        return parser.parse_args(['--cfg-options', *options]).cfg_options
    except (ValueError, AssertionError) as error:  # from DictAction
        raise InputError(f'--cfg-options: expected KEY=VALUE ({error})') from error
