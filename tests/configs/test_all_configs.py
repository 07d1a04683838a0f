"""Every shipped config parses, and its model can be built."""

from pathlib import Path

import pytest
import torch
from installed_hosts import readable
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import mmdla
from mmdla.models.resnet.blocks import Bottleneck
from mmdla.reproduce.tables import COMPARED, DIGITS

CONFIGS = sorted((Path(__file__).parents[2] / 'configs').glob('*.py'))
MODELS_OF_CIFAR = {
    'plain': None, 'se': 'SE', 'eca': 'ECA', 'dia': 'DIALSTM', 'mrla_l': 'MRLALight',
    'mrla_b': 'MRLABase', 'dla_l': 'DLALight', 'dla_b': 'DLABase', 'kcla': 'KCLA', 'rla': 'RLA',
}  # fmt: skip


ATTENTIONS_OF_IMAGENET = {
    'plain': None, 'mrla_l': 'MRLALight', 'mrla_b': 'MRLABase', 'dla_l': 'DLALight', 'dla_b': 'DLABase',
    'kcla': 'KCLA', 'rla': 'RLA',
}  # fmt: skip
DETECTORS = ('faster_rcnn', 'mask_rcnn', 'retinanet')


def test_configs_are_there():
    """Those that the README lists, and the demos'."""
    names = {f'cifar{classes}_{name}' for classes in (10, 100) for name in MODELS_OF_CIFAR}
    names |= {f'imagenet_{name}_r{d}' for d in (50, 101) for name in ATTENTIONS_OF_IMAGENET}
    backbones = ('dla_r50', 'dla_r101', 'mrla_r50', 'dla_b_r50')
    names |= {f'{detector}_{backbone}' for detector in DETECTORS for backbone in backbones}
    names |= {f'imagenet_mrla_{form}_deit_{size}' for form in 'lb' for size in ('tiny', 'small')}
    names |= {
        f'{name}_{kind}_r50' for name in ('faster_rcnn', 'retinanet') for kind in ('kcla', 'rla')
    }
    names |= {'imagenet_rla_eca_r50', 'faster_rcnn_dla_pvtv2_b1', 'faster_rcnn_dla_swin_t'}
    names |= {
        f'{name}_dla_r50{data}' for name in ('pspnet', 'deeplabv3plus') for data in ('', '_ade20k')
    }
    names |= {'rotated_retinanet_dla_r50', 'td_hm_dla_r50_coco'}
    names |= {f'{data}_{name}' for data in ('nuclei', 'bccd') for name in COMPARED}
    names |= {f'short_cifar10_{name}' for name in DIGITS}
    assert {path.stem for path in CONFIGS if not path.stem.startswith('demo_')} == names


@pytest.mark.parametrize('path', readable(CONFIGS), ids=lambda p: p.stem)
def test_imports_the_package(path):
    control = ['mmdla.reproduce.control'] if path.stem.endswith('_deeper') else []
    assert Config.fromfile(path).custom_imports.imports == ['mmdla', *control]


# those of 50 layers are trained, in tests/integration/test_every_config.py
@pytest.mark.parametrize(
    'path', readable(p for p in CONFIGS if '_r50' not in p.stem), ids=lambda p: p.stem
)
def test_builds(path):
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.pop('data_preprocessor', None)
    reads_numbers = path.stem.endswith(('pvtv2_b1', 'swin_t'))  # their hosts, of a tensor
    with torch.device('cpu' if reads_numbers else 'meta'):
        model = MODELS.build(cfg.model)
    assert isinstance(model.backbone, (mmdla.DLAResNet, mmdla.WithLayerAttention))


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


@pytest.mark.parametrize('depth', [50, 101])
@pytest.mark.parametrize('name', ATTENTIONS_OF_IMAGENET)
def test_imagenet_recipe(repo, name, depth):
    cfg = Config.fromfile(repo / f'configs/imagenet_{name}_r{depth}.py')
    backbone = cfg.model.backbone
    attention = backbone.layer_attention
    assert (attention and attention.type) == ATTENTIONS_OF_IMAGENET[name]
    assert backbone.depth == depth
    epochs = 120 if 'rla' in name and 'mrla' not in name else 100
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_cfg.max_epochs) == (256, epochs)
    *warm_up, steps = cfg.param_scheduler
    assert [schedule.end for schedule in warm_up] == ([3] if epochs == 100 else [])
    assert (steps.milestones, steps.gamma) == (
        [40, 70, 90] if name == 'kcla' else [30, 60, 90],
        0.1,
    )
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.1, 0.9, 1e-4)


def test_rla_with_eca(repo):
    with_eca, without = (
        Config.fromfile(repo / f'configs/imagenet_rla{eca}_r50.py').to_dict()
        for eca in ('_eca', '')
    )
    assert with_eca['model']['backbone']['layer_attention'].pop('eca')
    assert with_eca == without


SIZES_OF_DEIT = {  # parameters of the release
    ('tiny', 'l'): 5749792, ('tiny', 'b'): 5742880, ('small', 'l'): 22115296, ('small', 'b'): 22101472,
}  # fmt: skip


@pytest.mark.parametrize(('size', 'form'), SIZES_OF_DEIT)
def test_deit_recipe(repo, size, form):
    cfg = Config.fromfile(repo / f'configs/imagenet_mrla_{form}_deit_{size}.py')
    with torch.device('meta'):
        model = MODELS.build({**cfg.model, '_scope_': 'mmpretrain', 'train_cfg': None})
    assert sum(p.numel() for p in model.parameters()) == SIZES_OF_DEIT[size, form]
    kind = mmdla.MRLALightTokens if form == 'l' else mmdla.MRLABaseTokens
    assert isinstance(model.backbone.layer_attentions['0'], kind)
    rates = [float(layer.ffn.dropout_layer.drop_prob) for layer in model.backbone.layers]
    expected = [0.1 * i / 11 for i in range(12)] if form == 'l' else [0.1] * 12
    assert rates == pytest.approx(expected)
    assert (cfg.auto_scale_lr.base_batch_size, cfg.train_cfg.max_epochs) == (1024, 300)
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, warm_up.start_factor, cosine.begin, cosine.eta_min) == (5, 1e-3, 5, 1e-5)
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('AdamW', 1e-3, 0.05)
    assert cfg.optim_wrapper.clip_grad is None


@pytest.mark.parametrize('form', ['l', 'b'])
def test_what_of_deit_decays(repo, form):
    """By the rule of the release: matrices and filters, no vectors and no embeddings."""
    cfg = Config.fromfile(repo / f'configs/imagenet_mrla_{form}_deit_tiny.py')
    init_default_scope('mmpretrain')
    cfg.model.backbone.backbone.arch = dict(
        embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=32
    )
    cfg.model.head.in_channels = 32
    cfg.model.train_cfg = None
    model = MODELS.build(cfg.model)
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    decays = {p: group['weight_decay'] for group in optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        embedding = name.endswith(('cls_token', 'pos_embed'))
        expected = 0 if parameter.ndim == 1 or embedding else 0.05
        assert decays[parameter] == expected, name


@pytest.mark.parametrize('depth', [20, 56, 110])
def test_depth_of_cifar_is_an_option(repo, depth):
    cfg = Config.fromfile(repo / 'configs/cifar100_dla_l.py')
    cfg.merge_from_dict({'model.backbone.depth': depth})
    with torch.device('meta'):
        backbone = MODELS.build(cfg.model.backbone)
    blocks = sum(isinstance(m, Bottleneck) for m in backbone.modules())
    assert blocks * 3 + 2 == depth


def test_variant_inherits_a_config(repo, tmp_path):
    """As the README says: a base, and another attention."""
    variant = tmp_path / 'variant.py'
    variant.write_text(
        f'_base_ = {str(repo / "configs/faster_rcnn_dla_r50.py")!r}\n'
        "model = dict(backbone=dict(layer_attention=dict(_delete_=True, type='MRLABase')))\n"
    )
    backbone = Config.fromfile(variant).model.backbone
    assert (backbone.depth, backbone.init_cfg.checkpoint) == (50, 'torchvision://resnet50')
    with torch.device('meta'):
        assert isinstance(MODELS.build(backbone).layer1.attention, mmdla.MRLABase)
