"""The check of the tables' data: layout, counts, and what is said about them."""

import dataclasses
import json
import shutil

import pytest

from mmdla.errors import InputError
from mmdla.reproduce import data, tables
from mmdla.reproduce.data import check_table_data, count_images

PARTS = ('train', 'val', 'test')


def table_of(repo, name: str, train: int, val: int) -> tables.Table:
    """A table whose published data set is a tiny one."""
    table = tables.read_table(name, repo)
    return dataclasses.replace(table, images=dict(train=train, val=val))


def config(repo, table, root, *options: str):
    roots = [f'{part}_dataloader.dataset.data_root={root}' for part in PARTS]
    if table.name.startswith('coco'):
        annotations = f'{root}/annotations/instances_val2017.json'
        roots += [f'{part}_evaluator.ann_file={annotations}' for part in ('val', 'test')]
    return tables.row_config(table.rows[0], repo, (*roots, *options))


@pytest.fixture
def coco(repo, tiny_coco, tmp_path):
    table = table_of(repo, 'coco', 2, 2)
    root = shutil.copytree(tiny_coco, tmp_path / 'coco')
    return table, root, config(repo, table, root)


def test_whole_coco(coco):
    table, _, cfg = coco
    check_table_data(table, cfg)


def test_published_counts(repo, tiny_coco):
    table = tables.read_table('coco', repo)
    with pytest.raises(InputError) as error:
        check_table_data(table, config(repo, table, tiny_coco))
    lines = str(error.value).splitlines()
    assert f'- {tiny_coco}/train2017: images: 2, expected 118287' in lines
    annotations = f'{tiny_coco}/annotations/instances_val2017.json'
    assert f'- {annotations}: images in it: 2, expected 5000' in lines
    assert 'cocodataset.org' in lines[-1]


def test_an_image_is_gone(coco):
    table, root, cfg = coco
    next((root / 'val2017').iterdir()).unlink()
    with pytest.raises(InputError, match='val2017: images: 1, expected 2'):
        check_table_data(table, cfg)


def test_annotations_are_cut_off(coco):
    table, root, cfg = coco
    file = root / 'annotations/instances_train2017.json'
    file.write_text(file.read_text()[:-100])
    with pytest.raises(InputError, match=r'train2017\.json: it ends in the middle'):
        check_table_data(table, cfg)


@pytest.mark.parametrize('block', [3, 11, 12, 1000])
def test_images_are_counted_across_blocks(tiny_coco, monkeypatch, block):
    monkeypatch.setattr(data, 'BLOCK', block)
    file = tiny_coco / 'annotations/instances_train2017.json'
    assert count_images(file) == (len(json.loads(file.read_text())['images']), True)


def test_parts_that_share_a_folder(repo, tiny_coco, tmp_path):
    """Each part has a list of its own images, the folder has those of all parts."""
    table = dataclasses.replace(
        tables.read_table('bccd', repo), images=dict(train=2, val=2), in_folder=4
    )
    root = tmp_path / 'bccd'
    (root / 'images').mkdir(parents=True)
    (root / 'annotations').mkdir()
    for part, target in (('train', 'train'), ('val', 'test')):
        for image in (tiny_coco / f'{part}2017').iterdir():
            shutil.copy(image, root / 'images')
        source = tiny_coco / f'annotations/instances_{part}2017.json'
        shutil.copy(source, root / f'annotations/instances_{target}.json')
    cfg = config(repo, table, root)
    cfg.val_evaluator.ann_file = str(root / 'annotations/instances_test.json')
    check_table_data(table, cfg)
    next((root / 'images').iterdir()).unlink()
    with pytest.raises(InputError, match=r'(?s)images: images: 3, expected 4.*BCCD_Dataset'):
        check_table_data(table, cfg)


def test_coco_is_not_there(repo, tmp_path):
    table = tables.read_table('coco_masks', repo)
    with pytest.raises(InputError, match=r'(?s)train2017/   <- missing.*cocodataset\.org'):
        check_table_data(table, config(repo, table, tmp_path / 'coco'))


@pytest.fixture
def imagenet(tiny_imagenet, tmp_path, monkeypatch):
    """Two classes with an image each, in folders."""
    monkeypatch.setitem(data.CLASSES, 'imagenet', 2)
    for part in ('train', 'val'):
        for name, label in (('water_bottle', 'n04557648'), ('dining_table', 'n03201208')):
            folder = tmp_path / 'imagenet' / part / label
            folder.mkdir(parents=True)
            shutil.copy(tiny_imagenet / part / f'{name}.jpg', folder)
    return tmp_path / 'imagenet'


def test_imagenet_in_folders(repo, imagenet):
    table = table_of(repo, 'imagenet', 2, 2)
    cfg = config(repo, table, imagenet)
    check_table_data(table, cfg)
    shutil.rmtree(imagenet / 'train/n03201208')
    with pytest.raises(InputError) as error:
        check_table_data(table, cfg)
    assert f'- {imagenet}/train: folders, one for each class: 1, expected 2' in str(error.value)
    assert f'- {imagenet}/train: images: 1, expected 2' in str(error.value)
    assert 'one folder for every class' in str(error.value)


def test_imagenet_with_a_list(repo, imagenet, tiny_imagenet):
    table = table_of(repo, 'imagenet', 2, 2)
    shutil.rmtree(imagenet / 'val')
    shutil.copytree(tiny_imagenet / 'val', imagenet / 'val')
    cfg = config(repo, table, imagenet)
    with pytest.raises(InputError, match='val: folders, one for each class: 0'):
        check_table_data(table, cfg)
    (imagenet / 'meta').mkdir()
    shutil.copy(tiny_imagenet / 'meta/val.txt', imagenet / 'meta')
    check_table_data(table, cfg)


@pytest.mark.parametrize('classes', [10, 100])
def test_cifar_through_the_host(repo, tiny_cifar, classes):
    root = tiny_cifar(classes)
    parts = (16, 4) if classes == 10 else (10, 10)
    table = table_of(repo, f'cifar{classes}', sum(parts), 0)
    with pytest.raises(InputError) as error:
        check_table_data(table, config(repo, table, root))
    found = [int(line.split(': ')[-1].split(',')[0]) for line in str(error.value).splitlines()[1:]]
    assert sum(found) == 20 and all(n > 0 for n in found)
    whole = table_of(repo, f'cifar{classes}', *found)
    check_table_data(whole, config(repo, whole, root))


def test_cifar_is_downloaded_by_training_alone(repo, tmp_path, capsys):
    table = tables.read_table('cifar100', repo)
    cfg = config(repo, table, tmp_path)
    with pytest.raises(InputError, match=r'(?s)not there or not whole.*cifar-100-python\.tar\.gz'):
        check_table_data(table, cfg)
    check_table_data(table, cfg, may_download=True)
    assert 'will be downloaded from https://' in capsys.readouterr().out
    (tmp_path / 'cifar-100-python').mkdir()  # of a download that was broken off
    with pytest.raises(InputError, match='not there or not whole'):
        check_table_data(table, cfg, may_download=True)


def test_all_tables_are_looked_at(cli, repo, monkeypatch):
    monkeypatch.chdir(repo)
    code, message = cli('reproduce', '--check-data')
    assert code == 2
    assert 'coco, coco_masks: ' in message
    assert 'imagenet: ' in message and 'cifar10: ' in message and 'cifar100: ' in message
