"""Every shipped config parses, and its model can be built."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

import mmdla

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*.py'))
MODELS_OF_CIFAR = {
    'plain': None, 'se': 'SE', 'eca': 'ECA', 'dia': 'DIALSTM', 'mrla_l': 'MRLALight',
    'mrla_b': 'MRLABase', 'dla_l': 'DLALight', 'dla_b': 'DLABase',
}  # fmt: skip


def test_configs_are_there():
    assert len(CONFIGS) > 30


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_builds(path):
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ['mmdla']
    init_default_scope(cfg.default_scope)
    cfg.model.pop('data_preprocessor', None)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    assert isinstance(model.backbone, mmdla.DLAResNet)


@pytest.mark.parametrize('classes', [10, 100])
@pytest.mark.parametrize('name', MODELS_OF_CIFAR)
def test_cifar_recipe(repo, name, classes):
    cfg = Config.fromfile(repo / f'configs/cifar{classes}_{name}.py')
    attention = cfg.model.backbone.layer_attention
    assert (attention and attention.type) == MODELS_OF_CIFAR[name]
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == classes
    assert cfg.train_dataloader.dataset.type == f'CIFAR{classes}'
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (128, 180)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.1, 0.9, 1e-4)
