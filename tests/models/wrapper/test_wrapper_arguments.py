"""What cannot have layer attention is refused with the reason, where it is built."""

import pytest
import torch
from host_backbones import HOSTS, build
from mmengine.registry import MODELS, DefaultScope

from mmdla import KCLA, MRLABaseTokens, MRLALightTokens, WithLayerAttention
from mmdla.models.layer_attention import known_types

CONVNEXT = dict(type='mmpretrain.ConvNeXt', arch='atto')
DLA = dict(type='DLALight', head_channels=8)


@pytest.mark.parametrize('kind', ['SE', 'ECA', 'DIALSTM'])
def test_attentions_of_the_residual_branch(kind):
    assert kind in known_types()
    with pytest.raises(ValueError, match=f'{kind} changes the residual branch'):
        WithLayerAttention(CONVNEXT, dict(type=kind))


@pytest.mark.parametrize('kind', ['KCLA', 'RLA', KCLA])
def test_attentions_across_stages(kind):
    with pytest.raises(ValueError, match=r'(KCLA|RLA) hands its state on from stage to stage'):
        WithLayerAttention(CONVNEXT, dict(type=kind))


@pytest.mark.parametrize(
    ('host', 'words'),
    [
        (dict(type='mmpretrain.MobileNetV2'), 'no stages of shape-keeping blocks.*MobileNetV2'),
        (dict(type='mmpretrain.VGG', depth=11), 'no stages.*VGG.*known are'),
        (dict(type='mmpretrain.ViTSAM', arch='base'), 'no stages.*ViTSAM'),
        (dict(type='mmpretrain.NoSuchNet'), 'backbone.*NoSuchNet'),
        (dict(type='mmpretrain.ConvNeXt', arch='atom'), 'backbone: Unavailable arch'),
        (dict(type='WithLayerAttention', backbone=CONVNEXT, layer_attention=DLA), 'already'),
    ],
)
def test_backbones(host, words):
    with pytest.raises(ValueError, match=words):
        WithLayerAttention(host, DLA)


@pytest.mark.parametrize('kind', ['MRLALightTokens', MRLABaseTokens])
def test_token_attentions_need_tokens(kind):
    with pytest.raises(ValueError, match=r'works on tokens \(B, N, C\)'):
        WithLayerAttention(CONVNEXT, dict(type=kind))


@pytest.mark.parametrize(
    ('arguments', 'error', 'words'),
    [
        (dict(layer_attention=dict(type='DLALihgt')), ValueError, 'did you mean .DLALight.'),
        (dict(layer_attention=dict(type='Token')), ValueError, 'known are.*MRLABaseTokens'),
        (dict(layer_attention='DLALight'), TypeError, 'layer_attention must be a dict'),
        (dict(layer_attention=dict(type='DLALight', head_channels=7)), ValueError, 'head_channels'),
        (dict(layer_attention=dict(**DLA, channels=8)), ValueError, 'channels is that of'),
        (dict(layer_attention=dict(type='BN')), TypeError, 'no LayerAttention'),
        (dict(zero_init_attention=1), TypeError, 'zero_init_attention'),
        (dict(with_cp='yes'), TypeError, 'with_cp'),
        (dict(backbone='ConvNeXt'), TypeError, 'backbone must be a dict'),
        (dict(backbone=dict(arch='atto')), ValueError, "backbone must be a dict with a 'type'"),
        (dict(backbone=dict(type='mmpretrain.LinearClsHead')), TypeError, 'backbone'),
    ],
)
def test_arguments(arguments, error, words):
    with pytest.raises(error, match=words):
        WithLayerAttention(**{**dict(backbone=CONVNEXT, layer_attention=DLA), **arguments})


@pytest.mark.parametrize(
    ('arguments', 'error', 'words'),
    [
        (dict(head_channels=5), ValueError, 'head_channels must divide the 32'),
        (dict(kernel_size=4), ValueError, 'kernel_size must be odd'),
        (dict(restart=0), ValueError, 'restart must be an integer >= 1'),
        (dict(norm_cfg=dict(type='BN')), ValueError, 'norm of tokens'),
        (dict(norm_cfg=dict(type='NoNorm')), ValueError, 'norm_cfg'),
        (dict(norm_cfg='LN'), TypeError, 'norm_cfg must be a dict'),
        (dict(channels=32), ValueError, 'channels is that of the stage'),
        (dict(heads=3), TypeError, 'layer_attention.*heads'),
    ],
)
def test_arguments_of_token_attentions(arguments, error, words):
    host = dict(type='mmpretrain.VisionTransformer', **HOSTS['mmpretrain.VisionTransformer'])
    with pytest.raises(error, match=words):
        WithLayerAttention(host, dict(type='MRLABaseTokens', **arguments))


def test_zero_init_needs_a_norm_with_weights():
    cfg = dict(type='MRLALightTokens', norm_cfg=dict(type='LN', elementwise_affine=False))
    host = dict(type='mmpretrain.VisionTransformer', **HOSTS['mmpretrain.VisionTransformer'])
    with pytest.raises(ValueError, match='zero_init_attention needs'):
        WithLayerAttention(host, cfg)
    WithLayerAttention(host, cfg, zero_init_attention=False)


@pytest.mark.parametrize('kind', ['WithLayerAttention', 'mmdla.WithLayerAttention'])
def test_the_host_needs_no_prefix_in_a_config_of_its_library(kind):
    host = dict(type='ConvNeXt', arch='atto')
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = MODELS.build(dict(type=kind, backbone=host, layer_attention=DLA))
    assert type(model).__name__ == 'ConvNeXt'
    assert host == dict(type='ConvNeXt', arch='atto')


def test_types_may_be_classes():
    from mmpretrain.models import VisionTransformer

    host = dict(type=VisionTransformer, **HOSTS['mmpretrain.VisionTransformer'])
    model = MODELS.build(
        dict(
            type=WithLayerAttention,
            backbone=host,
            layer_attention=dict(type=MRLALightTokens),
            zero_init_attention=False,
        )
    )
    assert isinstance(model, VisionTransformer)
    plain = VisionTransformer(**HOSTS['mmpretrain.VisionTransformer'])
    plain.eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.rand(1, 3, 64, 64)
    assert not torch.equal(model.eval()(x)[0], plain(x)[0])


def test_the_hosts_own_class_is_left_alone():
    before = build('mmpretrain.ConvNeXt', None)
    build('mmpretrain.ConvNeXt')
    assert not hasattr(type(before).host, 'layer_attentions')
    assert type(before).host.forward is type(before).forward
