"""Configs of the host libraries work with ``type='mmdla.DLAResNet'`` in place of ``'ResNet'``."""

import importlib.util
import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdla import DLAResNet

BACKBONES = {
    'mmdet': [
        'faster_rcnn/faster-rcnn_r50_fpn_1x_coco',
        'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco',
        'faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco',
        'dcnv2/faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco',
        'gcnet/mask-rcnn_r50-syncbn-gcb-r16-c3-c5_fpn_1x_coco',
        'gn/mask-rcnn_r50_fpn_gn-all_2x_coco',
        'gn+ws/mask-rcnn_r50_fpn_gn-ws-all_2x_coco',
        'retinanet/retinanet_r18_fpn_1x_coco',
        'detr/detr_r50_8xb2-150e_coco',
    ],
    'mmpretrain': [
        'resnet/resnet18_8xb32_in1k',
        'resnet/resnet50_8xb32_in1k',
        'resnet/resnet152_8xb32_in1k',
    ],
}


def read_config(host: str, name: str) -> Config:
    package = Path(importlib.util.find_spec(host).origin).parent
    return Config.fromfile(package / f'.mim/configs/{name}.py')


@pytest.fixture
def scope_of():
    """Build under a host's default scope, as its runner does."""

    def enter(host: str) -> None:
        DefaultScope.get_instance(f'{host}-{id(enter)}', scope_name=host)

    instances = DefaultScope._instance_dict
    before = dict(instances)
    yield enter
    instances.clear()
    instances.update(before)


@pytest.mark.parametrize('host, name', [(h, n) for h, names in BACKBONES.items() for n in names])
def test_backbones_build(host, name, scope_of):
    scope_of(host)
    backbone = read_config(host, name).model.backbone
    assert backbone.pop('type') == 'ResNet'
    theirs = MODELS.build(dict(type='ResNet', **backbone))
    ours = MODELS.build(dict(type='mmdla.DLAResNet', layer_attention=None, **backbone))
    with_attention = MODELS.build(dict(type='mmdla.DLAResNet', **backbone))

    assert isinstance(ours, DLAResNet)
    assert (
        ours.state_dict().keys() == theirs.state_dict().keys() < with_attention.state_dict().keys()
    )
    for key in ('norm_eval', 'out_indices', 'frozen_stages'):
        assert getattr(ours, key) == getattr(theirs, key), key
    theirs.train()
    ours.train()
    assert trainable(ours) == trainable(theirs)
    assert in_training(ours) == in_training(theirs)


def trainable(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def in_training(model) -> set[str]:
    return {n for n, m in model.named_modules() if m.training and hasattr(m, 'running_mean')}


@pytest.fixture
def changed_config(tmp_path):
    """A config of a host library, whole, with nothing but the type of its backbone changed."""

    def change(host: str, name: str) -> Path:
        cfg = read_config(host, name)
        assert 'custom_imports' not in cfg
        assert cfg.model.backbone.type == 'ResNet'
        cfg.model.backbone.type = 'mmdla.DLAResNet'
        cfg.dump(tmp_path / 'config.py')
        return tmp_path / 'config.py'

    return change


@pytest.fixture
def train_with_host(run_process, tmp_path):
    """Train under the host's own tool and return the first line of its log."""

    def train(host: str, other: str, config: Path, *options: str) -> dict:
        common = [
            'default_hooks.logger.interval=1',
            'default_hooks.checkpoint=None',
            'train_dataloader.num_workers=0',
            'train_dataloader.persistent_workers=False',
            'train_cfg.max_epochs=1',
            'val_cfg=None',
            'val_dataloader=None',
            'val_evaluator=None',
        ]
        script = 'tests/integration/host_train.py'
        argv = [host, other, config, '--work-dir', tmp_path / 'run', '--cfg-options', *common]
        result = run_process(script, *argv, *options)
        assert result.returncode == 0, result.stderr
        (log,) = tmp_path.glob('run/*/vis_data/scalars.json')
        return json.loads(log.read_text().splitlines()[0])

    return train


@pytest.mark.parametrize('own', [False, True], ids=['of the host', 'ours'])
def test_detection_config_trains(
    train_with_host, changed_config, repo, tiny_coco, resnet_checkpoint, own
):
    name = 'faster_rcnn/faster-rcnn_r50_fpn_1x_coco'
    config = repo / 'configs/retinanet_dla_r50.py' if own else changed_config('mmdet', name)
    line = train_with_host(
        'mmdet',
        'mmpretrain',
        config,
        f'model.backbone.init_cfg.checkpoint={resnet_checkpoint(50)}',
        f'train_dataloader.dataset.data_root={tiny_coco}',
        'train_dataloader.dataset.pipeline.2.scale=(160,128)',
    )
    assert 0 < line['loss'] < 1000


def test_classification_config_trains(train_with_host, changed_config, tiny_imagenet):
    line = train_with_host(
        'mmpretrain',
        'mmdet',
        changed_config('mmpretrain', 'resnet/resnet50_8xb32_in1k'),
        f'train_dataloader.dataset.data_root={tiny_imagenet}',
        'train_dataloader.dataset.pipeline.1.scale=64',
        'train_dataloader.batch_size=2',
    )
    assert 0 < line['loss'] < 100
