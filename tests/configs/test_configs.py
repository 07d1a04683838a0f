"""What the COCO configs say."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

CONFIGS = ['faster_rcnn', 'mask_rcnn', 'retinanet']


def load(repo, name: str) -> Config:
    return Config.fromfile(repo / f'configs/{name}.py')


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize('name', CONFIGS)
def test_recipe(repo, name, depth):
    cfg = load(repo, f'{name}_dla_r{depth}')
    backbone = cfg.model.backbone
    assert backbone.type == 'DLAResNet'
    assert backbone.depth == depth
    assert backbone.layer_attention.type == 'DLALight'
    assert backbone.layer_attention.reduction == 20
    assert backbone.init_cfg.checkpoint == f'torchvision://resnet{depth}'
    assert (backbone.frozen_stages, backbone.norm_eval) == (1, True)
    assert cfg.train_cfg.max_epochs == 12
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.optim_wrapper.optimizer.lr == (0.01 if name == 'retinanet' else 0.02)
    assert cfg.custom_imports.imports == ['mmdla']


@pytest.mark.parametrize('name', CONFIGS)
def test_differs_from_the_host_in_the_backbone_alone(repo, name):
    ours = load(repo, f'{name}_dla_r50').to_dict()
    host_name = name.replace('_rcnn', '-rcnn')
    base = f'{name}/{host_name}_r50_fpn_1x_coco.py'
    host = Config.fromstring(f"_base_ = 'mmdet::{base}'", '.py').to_dict()
    ours.pop('custom_imports')
    backbone = ours['model'].pop('backbone')
    host_backbone = host['model'].pop('backbone')
    assert ours == host
    backbone.pop('layer_attention')
    assert backbone.pop('zero_init_attention')
    assert backbone.pop('type') == 'DLAResNet'
    assert host_backbone.pop('type') == 'ResNet'
    assert backbone == host_backbone


@pytest.mark.parametrize('depth', [50, 101])
def test_training_starts_from_the_features_of_the_resnet(repo, depth, resnet_checkpoint):
    """Random attention over pretrained features makes them grow with every block."""
    backbone = load(repo, f'faster_rcnn_dla_r{depth}').model.backbone
    backbone.init_cfg.checkpoint = str(resnet_checkpoint(depth))
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        ours = build(backbone)(image)
        plain = build({**backbone, 'layer_attention': None, 'zero_init_attention': False})(image)
    torch.testing.assert_close(ours, plain)


def test_attention_of_the_frozen_stage_learns(repo, resnet_checkpoint):
    backbone = load(repo, 'faster_rcnn_dla_r50').model.backbone
    backbone.init_cfg.checkpoint = str(resnet_checkpoint(50))
    model = build(backbone)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    of_stage = {name for name in model.state_dict() if name.startswith('layer1.')}
    attention = {name for name, _ in model.layer1.attention.named_parameters('layer1.attention')}
    assert learning & of_stage == attention


def build(cfg: dict) -> torch.nn.Module:
    model = MODELS.build(cfg)
    model.init_weights()
    return model.train()
