"""Every shipped config trains and validates on a little real data, or is like one that does.

Networks of 101 layers differ from those of 50 in the depth alone, and some tables take the attentions
that another takes. The three COCO configs of DLA-L with 50 layers, which test_coco_configs.py runs through training and
testing, are left to that file, those of other backbones to test_wrapper_configs.py, segmentation and
oriented boxes to test_dense_configs.py.
"""

import functools
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from test_coco_configs import CONFIGS as TESTED_ELSEWHERE
from test_coco_configs import options_for
from test_dense_configs import CONFIGS as DENSE
from test_wrapper_configs import CONFIGS as OF_OTHER_BACKBONES

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*.py'))
SHORT = [
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=-1',
    'default_hooks.checkpoint.save_last=False',
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'randomness.seed=0',
]
RAN: list[str] = []
# Tables of the same attentions: prefixes of the first and of its twin, the row that both differ
# from, and the rows of the first that train here. What the rows of the twin change, train.
TWINS = (
    ('cifar10_', 'cifar100_', 'plain', ('plain', 'dla_l')),
    ('short_cifar10_', 'demo_digits_', 'plain', ('plain',)),
    ('bccd_', 'nuclei_', 'plain', ('plain', 'dla_b')),
    ('retinanet_', 'faster_rcnn_', 'dla_r50', ('dla_r50', 'mrla_r50')),
    ('mask_rcnn_', 'faster_rcnn_', 'dla_r50', ('dla_r50',)),
)


def twin_of(path: Path) -> tuple[Path, Path, Path] | None:
    """The twin of a config that is compared instead of being trained, and the two tables' bases."""
    for first, second, base, rows in TWINS:
        row = path.stem.removeprefix(first)
        if path.stem.startswith(first) and row not in rows and not row.endswith('r101'):
            return tuple(
                path.with_stem(name) for name in (second + row, first + base, second + base)
            )
    return None


def like_another(path: Path) -> bool:
    """Whether the config is compared with another instead of being trained."""
    return path.stem.endswith('_r101') or twin_of(path) is not None


def of(*prefixes: str) -> list[Path]:
    names = [p for p in CONFIGS if p.stem.startswith(prefixes) and not like_another(p)]
    RAN.extend(path.stem for path in names)
    return names


@pytest.fixture
def train(tool, tmp_path):
    """Train a config with options; the losses and the last validation's metrics."""

    def run(config: Path, *options: str) -> tuple[list[float], dict]:
        argv = [str(config), '--work-dir', str(tmp_path / 'run'), '--cfg-options']
        tool('train')([*argv, *SHORT, *options])
        (log,) = tmp_path.glob('run/*/vis_data/scalars.json')
        rows = [json.loads(line) for line in log.read_text().splitlines()]
        return [row['loss'] for row in rows if 'loss' in row], rows[-1]

    return run


def loader_options(root: Path, train: int, val: int) -> list[str]:
    options = [f'train_dataloader.batch_size={train}', f'val_dataloader.batch_size={val}']
    for split in ('train', 'val', 'test'):
        options += [
            f'{split}_dataloader.num_workers=0',
            f'{split}_dataloader.persistent_workers=False',
            f'{split}_dataloader.dataset.data_root={root}',
        ]
    return options


def check(losses: list[float], metrics: dict, key: str) -> None:
    assert losses and all(0 < loss < 1000 for loss in losses), losses
    assert -1 <= metrics[key] <= 100


@pytest.mark.parametrize('config', of('cifar'), ids=lambda path: path.stem)
def test_cifar(config, train, tiny_cifar):
    root = tiny_cifar(100 if 'cifar100' in config.stem else 10)
    losses, metrics = train(config, *loader_options(root, 8, 8))
    check(losses, metrics, 'accuracy/top1')


@pytest.mark.parametrize('config', of('imagenet'), ids=lambda path: path.stem)
def test_imagenet(config, train, tiny_imagenet):
    options = loader_options(tiny_imagenet, 2, 2)
    for split in ('train', 'val'):
        options.append(f'{split}_dataloader.dataset.ann_file=meta/{split}.txt')
    if 'deit' in config.stem:  # whose second schedule begins after one epoch
        options.append('param_scheduler.1.begin=0')
    losses, metrics = train(config, *options)
    check(losses, metrics, 'accuracy/top1')


@pytest.mark.parametrize('config', of('demo_digits', 'short_cifar10'), ids=lambda path: path.stem)
def test_digits(config, train, tiny_folders):
    options = loader_options(tiny_folders, 5, 5)
    losses, metrics = train(config, *options)
    check(losses, metrics, 'accuracy/top1')


@pytest.fixture
def tiny_folders(tmp_path, repo):
    """A few images of ten classes, one folder for each."""
    for path in (repo / 'tests/data/cifar').glob('cifar10_*.png'):
        folder = tmp_path / 'classes' / path.stem.split('_')[2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    for label in range(10):  # some class has no image among the twenty
        (tmp_path / 'classes' / str(label)).mkdir(exist_ok=True)
    return tmp_path / 'classes'


@pytest.mark.parametrize('config', of('demo_tree', 'nuclei', 'bccd'), ids=lambda path: path.stem)
def test_small_detectors(config, train, tiny_coco, tmp_path):
    """On the tiny data set with every instance called what the data's first class is."""
    files = {}
    dataset = Config.fromfile(config).train_dataloader.dataset
    for split, source in (('train', 'train2017'), ('val', 'val2017')):
        content = json.loads((tiny_coco / f'annotations/instances_{source}.json').read_text())
        classes = enumerate(dataset.metainfo.classes, 1)
        content['categories'] = [dict(id=i, name=name) for i, name in classes]
        for annotation in content['annotations']:
            annotation['category_id'] = 1
        files[split] = tmp_path / f'{split}.json'
        files[split].write_text(json.dumps(content))
    options = loader_options(tiny_coco, 2, 1)
    for split in ('train', 'val', 'test'):
        source = 'train' if split == 'train' else 'val'
        options.append(f'{split}_dataloader.dataset.ann_file={files[source]}')
        options.append(f'{split}_dataloader.dataset.data_prefix.img={source}2017/')
    options += [f'{split}_evaluator.ann_file={files["val"]}' for split in ('val', 'test')]
    if 'demo' not in config.stem:
        options.append('param_scheduler.1.T_max=1')
    losses, metrics = train(config, *options)
    check(losses, metrics, 'coco/segm_mAP' if 'nuclei' in config.stem else 'coco/bbox_mAP')


OTHER_COCO = [
    path
    for path in of('faster_rcnn', 'mask_rcnn', 'retinanet')
    if path.stem not in (*TESTED_ELSEWHERE, *OF_OTHER_BACKBONES)
]


@pytest.mark.parametrize('config', OTHER_COCO, ids=lambda path: path.stem)
def test_coco(config, train, tiny_coco, resnet_checkpoint, tmp_path):
    weights = resnet_checkpoint(int(config.stem.rsplit('_r', 1)[1]))
    options = options_for(config.stem, tiny_coco, weights, tmp_path)
    losses, metrics = train(config, *options)
    check(losses, metrics, 'coco/bbox_mAP')


LIKE_ANOTHER = [path for path in CONFIGS if like_another(path)]


@functools.cache
def settings_of(path: Path) -> dict[str, object]:
    """The settings of a config by their dotted names."""

    def walk(value, name: str):
        if isinstance(value, dict):
            for key, item in value.items():
                yield from walk(item, f'{name}.{key}')
        else:
            yield name, value

    return dict(walk(Config.fromfile(path).to_dict(), ''))


def difference(path: Path, other: Path) -> dict[str, tuple]:
    """Settings that two configs do not share, with both values."""
    first, second = settings_of(path), settings_of(other)
    return {
        name: (first.get(name), second.get(name))
        for name in first.keys() | second.keys()
        if first.get(name) != second.get(name)
    }


@pytest.mark.parametrize('config', LIKE_ANOTHER, ids=lambda path: path.stem)
def test_like_one_that_trains(config):
    if config.stem.endswith('_r101'):
        small = config.with_stem(config.stem.replace('_r101', '_r50'))
        found = difference(small, config)
        assert found.pop('.model.backbone.depth') == (50, 101)
        weights = ('torchvision://resnet50', 'torchvision://resnet101')
        assert found in ({}, {'.model.backbone.init_cfg.checkpoint': weights})
        assert small.stem in (*RAN, *TESTED_ELSEWHERE)
        return
    twin, base, base_of_twin = twin_of(config)
    assert difference(base, config) == difference(base_of_twin, twin) != {}
    assert {twin.stem, base.stem} <= {*RAN, *TESTED_ELSEWHERE}


def test_none_is_left_out():
    known = [*RAN, *DENSE, *(path.stem for path in LIKE_ANOTHER)]
    assert sorted(known) == [path.stem for path in CONFIGS]
    assert {*TESTED_ELSEWHERE, *OF_OTHER_BACKBONES} <= set(RAN)
