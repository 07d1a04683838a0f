"""Classes that are no list of names and heads for another number of them end before training."""

import pytest
from mmengine.config import Config

from mmdla.datasets.classes import check_classes
from mmdla.errors import InputError

LOADERS = ('train_dataloader', 'val_dataloader')
NAMES = ('a', 'b', 'c')


def detector(model: dict, classes=NAMES, **dataset) -> Config:
    data = dict(type='CocoDataset', metainfo=dict(classes=classes), **dataset)
    return Config(dict(default_scope='mmdet', model=model, train_dataloader=dict(dataset=data)))


def one_stage(number: int = 3) -> dict:
    return dict(type='RetinaNet', bbox_head=dict(type='RetinaHead', num_classes=number))


def refusal(cfg: Config) -> str:
    with pytest.raises(InputError) as caught:
        check_classes(cfg, LOADERS)
    return str(caught.value)


@pytest.mark.parametrize('number', [80, 1, 2, 4])
def test_heads_of_detectors(number):
    check_classes(detector(one_stage()), LOADERS)
    text = refusal(detector(one_stage(number)))
    assert f'model.bbox_head.num_classes={number}: must be 3' in text
    assert 'train_dataloader.dataset' in text and "'a', 'b', 'c'" in text


def test_every_head_of_two_stages():
    """Box heads in a list, a mask head; proposals, semantic maps and backbones are left alone."""

    def model(first=3, second=3, mask=3):
        heads = [dict(type='Shared2FCBBoxHead', num_classes=n) for n in (first, second)]
        return dict(
            type='CascadeRCNN',
            backbone=dict(type='SSDVGG', num_classes=1000),
            rpn_head=dict(type='RPNHead', num_classes=1),
            roi_head=dict(
                type='CascadeRoIHead',
                bbox_head=heads,
                mask_head=dict(type='FCNMaskHead', num_classes=mask),
                semantic_head=dict(type='FusedSemanticHead', num_classes=183),
            ),
        )

    check_classes(detector(model()), LOADERS)
    text = refusal(detector(model(second=80, mask=1)))
    assert 'model.roi_head.bbox_head.1.num_classes=80' in text
    assert 'model.roi_head.mask_head.num_classes=1' in text
    assert 'bbox_head.0' not in text and '183' not in text and '1000' not in text


def test_classes_of_the_data_set_itself():
    cfg = detector(one_stage(80))
    del cfg.train_dataloader.dataset.metainfo
    check_classes(cfg, LOADERS)
    cfg.model.bbox_head.num_classes = 81
    assert 'must be 80' in refusal(cfg)


def test_heads_that_read_the_names_are_left_alone():
    model = dict(one_stage(256), language_model=dict(type='BertModel'))
    check_classes(detector(model), LOADERS)


@pytest.mark.parametrize('wrap', ['RepeatDataset', 'ConcatDataset'])
def test_inside_of_wrappers(wrap):
    cfg = detector(one_stage(), classes='nucleus')
    inner = cfg.train_dataloader.dataset
    inside = dict(dataset=inner) if wrap == 'RepeatDataset' else dict(datasets=[inner])
    cfg.train_dataloader.dataset = dict(type=wrap, **inside)
    key = 'dataset.dataset' if wrap == 'RepeatDataset' else 'dataset.datasets.0'
    assert f'train_dataloader.{key}.metainfo.classes must be a list' in refusal(cfg)


def test_a_string_is_no_list_of_names(tmp_path):
    text = refusal(detector(one_stage(1), classes='nucleus'))
    assert 'train_dataloader.dataset.metainfo.classes must be a list of names' in text
    assert "('nucleus',)" in text
    names = tmp_path / 'classes.txt'
    names.write_text('a\nb\nc\n')
    check_classes(detector(one_stage(), classes=str(names)), LOADERS)
    assert 'must be 3' in refusal(detector(one_stage(80), classes=str(names)))


@pytest.mark.parametrize('classes', [(), (1, 2, 3), 3, ('a', 'b', 'a'), dict(a=1)])
def test_other_wrong_forms(classes):
    assert 'metainfo.classes' in refusal(detector(one_stage(), classes=classes))


def test_the_name_of_before():
    cfg = detector(one_stage())
    cfg.train_dataloader.dataset.metainfo = dict(CLASSES=NAMES)
    assert "it is called 'classes'" in refusal(cfg)


def test_validation_data_too():
    cfg = detector(one_stage())
    wrong = dict(type='CocoDataset', metainfo=dict(classes='a'))
    cfg.val_dataloader = dict(dataset=wrong)
    assert 'val_dataloader.dataset.metainfo.classes' in refusal(cfg)


def classifier(number: int, **dataset) -> Config:
    model = dict(type='ImageClassifier', head=dict(type='LinearClsHead', num_classes=number))
    data = dict(default_scope='mmpretrain', model=model, train_dataloader=dict(dataset=dataset))
    return Config(data)


def test_classifiers(tmp_path, capsys):
    check_classes(classifier(10, type='CIFAR10'), LOADERS)
    assert 'model.head.num_classes=100: must be 10' in refusal(classifier(100, type='CIFAR10'))
    cfg = classifier(10, type='CIFAR10')
    cfg.data_preprocessor = dict(num_classes=100)
    assert 'data_preprocessor.num_classes=100' in refusal(cfg)
    own = dict(type='CustomDataset', data_root=str(tmp_path), data_prefix='train')
    check_classes(classifier(5, **own), LOADERS)  # the folder is not there
    for name in NAMES:
        (tmp_path / 'train' / name).mkdir(parents=True)
    check_classes(classifier(3, **own), LOADERS)
    assert 'must be 3' in refusal(classifier(2, **own))
    check_classes(classifier(5, **own), LOADERS)  # the folders may be part of a data set
    assert 'num_classes=5, but train_dataloader.dataset has 3 folders' in capsys.readouterr().out
    check_classes(classifier(2, **own, classes=['a', 'b']), LOADERS)
    assert 'train_dataloader.dataset.classes' in refusal(classifier(2, **own, classes='a'))


def test_types_that_are_classes():
    from mmdet.datasets import CocoDataset
    from mmdet.models import FusedSemanticHead, RetinaHead, RetinaNet, RPNHead

    model = dict(
        type=RetinaNet,
        bbox_head=dict(type=RetinaHead, num_classes=3),
        first=dict(type=RPNHead, num_classes=1),
        other=dict(type=FusedSemanticHead, num_classes=183),
    )
    cfg = Config(dict(default_scope='mmdet', model=model))
    cfg.train_dataloader = dict(dataset=dict(type=CocoDataset, metainfo=dict(classes=NAMES)))
    check_classes(cfg, LOADERS)
    cfg.model.bbox_head.num_classes = 80
    assert 'model.bbox_head.num_classes=80' in refusal(cfg)
