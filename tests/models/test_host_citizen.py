"""What configs and code for the host's ResNet do, with ours."""

import pytest
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models.backbones import ResNet
from torch import nn

from mmdla import SE, DLAResNet

TINY = dict(depth=50, base_channels=8)
FROZEN = dict(type='BN', requires_grad=False)


@pytest.mark.parametrize('kind', ['DLALight', 'DLABase', 'MRLALight', 'MRLABase'])
def test_attention_learns_though_norms_are_frozen(kind):
    cfg = dict(type=kind, head_channels=8)
    model = DLAResNet(**TINY, norm_cfg=FROZEN, layer_attention=cfg, zero_init_attention=True)
    assert not model.layer1[0].norm(1).weight.requires_grad
    assert all(p.requires_grad for n, p in model.named_parameters() if '.attention.' in n)


def test_frozen_attention_norms_cannot_start_as_identity():
    cfg = dict(type='DLALight', head_channels=8, norm_cfg=FROZEN)
    with pytest.raises(ValueError, match='requires_grad=False'):
        DLAResNet(**TINY, layer_attention=cfg, zero_init_attention=True)


@pytest.mark.parametrize('depth', [50, 101, 152])
def test_layer_depths_are_the_hosts(depth):
    args = dict(depth=depth, base_channels=8)
    cfg = dict(type='DLALight', head_channels=8)
    host, ours = ResNet(**args), DLAResNet(**args, layer_attention=cfg)
    for name, _ in host.named_parameters(prefix='backbone'):
        assert ours.get_layer_depth(name, 'backbone.') == host.get_layer_depth(name, 'backbone.')
    of = ours.get_layer_depth
    assert of('head.fc.weight', 'backbone.') == host.get_layer_depth('head.fc.weight', 'backbone.')
    assert of('layer3.attention.blocks.0.lambda_') == of('layer3.0.conv1.weight')
    assert of('layer3.attention.dsu.x') == of(f'layer3.{len(ours.layer3) - 1}.conv1.weight')


def test_names_do_not_collide():
    other = type('SE', (nn.Module,), {})
    MODELS.register_module(name='SE', module=other)
    try:
        for kind in ('SE', 'mmdla.SE', SE):
            model = DLAResNet(**TINY, layer_attention=dict(type=kind, reduction=2))
            assert isinstance(model.layer1.attention, SE)
    finally:
        MODELS.module_dict.pop('SE')


@pytest.mark.parametrize('scope', ['mmdet', 'mmrotate', 'mmyolo'])
def test_defaults_of_libraries_built_on_mmdetection(scope):
    with DefaultScope.overwrite_default_scope(scope):
        model = DLAResNet(**TINY, layer_attention=None)
    assert model.norm_eval and model.out_indices == (0, 1, 2, 3) and model.stem_channels == 8


def test_mmaction_is_refused():
    with DefaultScope.overwrite_default_scope('mmaction'), pytest.raises(ValueError, match='bare'):
        DLAResNet(**TINY)


def test_wrong_words_are_named():
    with pytest.raises(TypeError, match=r"layer_attention\.reductoin: DLALight.*'reduction'"):
        DLAResNet(**TINY, layer_attention=dict(type='DLALight', reductoin=8))
    with pytest.raises(ValueError, match="norm_cfg: unknown type 'BatchNorm', did you mean 'BN'"):
        DLAResNet(**TINY, norm_cfg=dict(type='BatchNorm'))
