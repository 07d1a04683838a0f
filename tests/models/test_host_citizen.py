"""What configs and code for the host's ResNet do, with ours."""

from contextlib import contextmanager

import pytest
from attention_lists import ADDING, small
from mmdet.registry import MODELS as HOST_MODELS
from mmengine.registry import MODELS, DefaultScope
from mmpretrain.models.backbones import ResNet
from torch import nn

from mmdla import DSU, ECA, SE, DLAResNet
from mmdla.models.register import register_yielding

TINY = dict(depth=50, base_channels=8)
FROZEN = dict(type='BN', requires_grad=False)


@pytest.mark.parametrize('kind', ADDING)
def test_attention_learns_though_norms_are_frozen(kind):
    model = DLAResNet(
        **TINY, norm_cfg=FROZEN, layer_attention=small(kind), zero_init_attention=True
    )
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
    for name in ('read', 'norms', 'eca'):
        assert of(f'layer3.attention.{name}.0.weight') == of('layer3.0.conv1.weight')
    assert of('layer3.attention.dsu.x') == of(f'layer3.{len(ours.layer3) - 1}.conv1.weight')


def test_names_do_not_collide():
    other = type('SE', (nn.Module,), {})
    with kept_registry(MODELS):
        MODELS.register_module(name='SE', module=other)
        assert type(MODELS.build(dict(type='SE'))) is other
        for kind in ('SE', 'mmdla.SE', SE):
            model = DLAResNet(**TINY, layer_attention=dict(type=kind, reduction=2))
            assert isinstance(model.layer1.attention, SE)


@contextmanager
def kept_registry(registry):
    """The registry as it is now, afterwards too."""
    before = dict(registry.module_dict)
    try:
        yield
    finally:
        registry.module_dict.clear()
        registry.module_dict.update(before)


@pytest.mark.parametrize('cls', [DSU, SE, ECA])
def test_common_names_are_registered_until_somebody_takes_them(cls):
    args = dict(channels=16) if cls is DSU else dict(channels=16, num_blocks=2)
    name = cls.__name__
    assert type(MODELS.build(dict(type=name, **args))) is cls
    with kept_registry(HOST_MODELS), DefaultScope.overwrite_default_scope('mmdet'):
        assert type(MODELS.build(dict(type=name, **args))) is cls
        of_host = HOST_MODELS.register_module(name=name, module=type(name, (nn.Module,), {}))
        assert type(MODELS.build(dict(type=name))) is of_host
    for take in (
        lambda user: MODELS.register_module(name=name, module=user),
        lambda user: MODELS.register_module()(user),
        lambda user: MODELS.register_module(name=['Another', name])(user),
        lambda user: MODELS.register_module(force=True)(user),
    ):
        user = type(name, (nn.Module,), {})
        with kept_registry(MODELS):
            take(user)
            assert type(MODELS.build(dict(type=name))) is user
            with pytest.raises(KeyError, match='already registered'):  # the second stranger
                MODELS.register_module(name=name, module=type(name, (nn.Module,), {}))
    with pytest.raises(KeyError, match='already registered'):
        MODELS.register_module(module=cls)


def test_names_taken_before_stay():
    class Common(nn.Module):
        pass

    ours = type('Common', (nn.Module,), {})
    with kept_registry(MODELS):
        MODELS.register_module(module=Common)
        assert register_yielding(ours) is ours
        assert type(MODELS.build(dict(type='Common'))) is Common


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
