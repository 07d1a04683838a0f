"""The check of data folders."""

import os

import pytest
from mmengine.config import ConfigDict

from mmdla.datasets.data import check_data, data_paths
from mmdla.errors import InputError

LOADERS = ('train_dataloader', 'val_dataloader')


def coco(root: str, **dataset) -> ConfigDict:
    cfg = dict(
        type='CocoDataset',
        data_root=root,
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
    )
    return ConfigDict(
        train_dataloader=dict(dataset={**cfg, **dataset}),
        val_evaluator=dict(
            type='CocoMetric', ann_file=f'{root}/annotations/instances_val2017.json'
        ),
    )


def make(root, *names: str) -> None:
    for name in names:
        path = root / name
        if name.endswith('/'):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text('')


def test_draws_what_is_missing(tmp_path):
    make(tmp_path, 'annotations/instances_train2017.json')
    with pytest.raises(InputError) as error:
        check_data(coco(f'{tmp_path}/'), LOADERS)
    lines = str(error.value).splitlines()
    assert str(tmp_path) in lines[0]
    assert '2 of 3' in lines[0]
    assert lines[2:7] == [
        f'{tmp_path}/',
        '├── annotations/',
        '│   ├── instances_train2017.json',
        '│   └── instances_val2017.json   <- missing',
        '└── train2017/   <- missing',
    ]
    assert 'cocodataset.org' in str(error.value)


def test_accepts_what_is_there(tmp_path):
    make(
        tmp_path,
        'annotations/instances_train2017.json',
        'annotations/instances_val2017.json',
        'train2017/',
    )
    check_data(coco(str(tmp_path)), LOADERS)


def test_a_file_where_a_folder_should_be_is_missing(tmp_path):
    make(tmp_path, 'annotations/instances_train2017.json', 'annotations/instances_val2017.json')
    make(tmp_path, 'train2017')
    with pytest.raises(InputError, match='train2017/   <- missing'):
        check_data(coco(str(tmp_path)), LOADERS)


def test_relative_roots_are_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=str(tmp_path / 'data' / 'coco')):
        check_data(coco('data/coco'), LOADERS)


@pytest.mark.parametrize(
    'wrap',
    [
        lambda d: dict(type='RepeatDataset', times=2, dataset=d),
        lambda d: dict(type='ConcatDataset', datasets=[d]),
        lambda d: dict(type='A', dataset=dict(type='B', datasets=(d,))),
    ],
)
def test_sees_through_wrappers(tmp_path, wrap):
    cfg = coco(str(tmp_path))
    cfg.train_dataloader.dataset = wrap(cfg.train_dataloader.dataset)
    assert len(data_paths(cfg, LOADERS)) == 3


@pytest.mark.parametrize(
    'dataset', [dict(data_root='s3://bucket/coco'), dict(backend_args=dict(backend='petrel'))]
)
def test_leaves_remote_data_alone(dataset):
    cfg = coco('data/coco', **dataset)
    del cfg.val_evaluator
    check_data(cfg, LOADERS)


def test_several_metrics_and_absolute_annotations(tmp_path):
    cfg = coco(str(tmp_path / 'coco'), ann_file=str(tmp_path / 'lists/train.json'))
    cfg.val_evaluator = [cfg.val_evaluator, dict(type='DumpResults')]
    names = {os.path.relpath(p.path, tmp_path) for p in data_paths(cfg, LOADERS)}
    assert names == {
        'lists/train.json',
        'coco/train2017',
        'coco/annotations/instances_val2017.json',
    }


def test_imagenet_split(tmp_path):
    dataset = dict(type='ImageNet', data_root=str(tmp_path), split='val')
    cfg = ConfigDict(train_dataloader=dict(dataset=dataset))
    with pytest.raises(InputError, match=r'(?s)val/   <- missing.*one folder for every class'):
        check_data(cfg, LOADERS)
    make(tmp_path, 'val/')
    check_data(cfg, LOADERS)


@pytest.mark.parametrize('kind, folder', [('CIFAR10', '-10-'), ('CIFAR100', '-100-')])
def test_cifar_is_left_to_the_host_unless_it_may_not_download(tmp_path, kind, folder):
    dataset = dict(type=kind, data_root=str(tmp_path), split='train')
    cfg = ConfigDict(train_dataloader=dict(dataset=dataset))
    check_data(cfg, LOADERS)
    cfg.train_dataloader.dataset.download = False
    with pytest.raises(InputError, match='cifar'):
        check_data(cfg, LOADERS)


def test_how_a_folder_elsewhere_is_linked(tmp_path):
    """Said where nothing is in its place."""
    root = tmp_path / 'data/coco'
    with pytest.raises(InputError, match=f'ln -s /path/to/it {root}$'):
        check_data(coco(str(root)), LOADERS)
    root.mkdir(parents=True)
    with pytest.raises(InputError) as error:
        check_data(coco(str(root)), LOADERS)
    assert 'ln -s' not in str(error.value)


def test_annotations_outside_of_the_root(tmp_path):
    cfg = coco(str(tmp_path / 'coco'), ann_file=str(tmp_path / 'lists/train.json'))
    roots = {
        os.path.basename(p.path): os.path.relpath(p.root, tmp_path)
        for p in data_paths(cfg, LOADERS)
    }
    assert roots == {'train.json': 'lists', 'train2017': 'coco', 'instances_val2017.json': 'coco'}


def test_no_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = dict(type='CocoDataset', ann_file='a.json', data_prefix=dict(img='images'))
    cfg = ConfigDict(train_dataloader=dict(dataset=dataset))
    assert [(p.root, p.path) for p in data_paths(cfg, LOADERS)] == [('', 'a.json'), ('', 'images')]
    with pytest.raises(InputError, match=r'a\.json   <- missing'):
        check_data(cfg, LOADERS)
