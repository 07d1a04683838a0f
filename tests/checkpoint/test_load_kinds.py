"""Checkpoints of Caffe, of self-supervised training and for other images; another attention."""

import logging
import warnings

import pytest
import torch
from mmengine.runner import load_checkpoint
from torch import nn

from mmdla import DLAResNet
from mmdla.checkpoint import CheckpointError, load_backbone

LIGHT = dict(type='DLALight', reduction=4, head_channels=8)
BASE = dict(type='DLABase', reduction=4, head_channels=8)
SMALL = dict(base_channels=8, stem_channels=8, norm_eval=False)


def net(layer_attention=LIGHT, depth=18, **kwargs):
    return DLAResNet(depth, **{**SMALL, 'layer_attention': layer_attention, **kwargs})


def lively(model):
    generator = torch.Generator().manual_seed(7)
    for value in model.state_dict().values():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape, generator=generator) * 0.2 + 0.1)
    return model.eval()


def resnet(**kwargs):
    return lively(net(None, **kwargs)).state_dict()


def images(channels=3):
    return torch.rand(2, channels, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path):
    def save(content):
        torch.save(content, tmp_path / 'weights.pth')
        return str(tmp_path / 'weights.pth')

    return save


class Convolution(nn.Module):
    """A convolution with the bias that the model has no place for."""

    def __init__(self, conv, bias):
        super().__init__()
        self.conv, self.bias = conv, bias

    def forward(self, x):
        return self.conv(x) + self.bias[:, None, None]


def with_biases(model, make):
    """A model with biases at all its convolutions, and its state dict as Caffe's would be."""
    state = dict(model.state_dict())
    for name, conv in list(model.named_modules()):
        if isinstance(conv, nn.Conv2d) and 'attention' not in name:
            parent, _, child = name.rpartition('.')
            state[f'{name}.bias'] = make(conv.out_channels)
            wrapped = Convolution(conv, state[f'{name}.bias'])
            setattr(model.get_submodule(parent), child, wrapped)
    return model, state


@pytest.mark.parametrize(
    'kind', [dict(), dict(depth=50), dict(deep_stem=True, avg_down=True)], ids=str
)
@pytest.mark.parametrize('make', [torch.zeros, torch.randn], ids=['zero', 'random'])
def test_biases_of_caffe(saved, kind, make):
    torch.manual_seed(3)
    source, state = with_biases(lively(net(None, **kind)), make)
    biases = [name for name in state if name.endswith('.bias') and name[:-4] + 'weight' in state]
    biases = [name for name in biases if state[name[:-4] + 'weight'].ndim == 4]
    assert len(biases) >= 20
    model = net(None, **kind)
    report = load_backbone(model, saved(state))
    torch.testing.assert_close(model.eval()(images()), source(images()))
    zero = make is torch.zeros
    assert set(biases) == set(report.left_out if zero else report.folded)
    assert ('folded into running means' in str(report)) is not zero


def test_biases_that_change_nothing_or_cannot_be_taken_away(saved):
    groups, statistics = dict(type='GN', num_groups=2), dict(type='IN')
    state = resnet(norm_cfg=groups)
    zero = dict(state, **{'conv1.bias': torch.zeros(8)})
    assert load_backbone(net(None, norm_cfg=groups), saved(zero)).left_out == ['conv1.bias']
    other = dict(state, **{'layer2.0.conv1.bias': torch.ones(16)})
    with pytest.raises(CheckpointError, match=r'layer2\.0\.conv1\.bias: not zero, and GroupNorm'):
        load_backbone(net(None, norm_cfg=groups), saved(other))
    own = dict(resnet(norm_cfg=statistics), **{'conv1.bias': torch.ones(8)})
    assert load_backbone(net(None, norm_cfg=statistics), saved(own)).left_out == ['conv1.bias']
    for bias, words in (
        (torch.ones(4), r'shape \(4,\) for 8 channels'),
        (torch.full((8,), torch.nan), 'no finite numbers'),
        (torch.ones(8, dtype=torch.int64), 'no finite numbers'),
    ):
        with pytest.raises(CheckpointError, match=f'conv1.bias: {words}'):
            load_backbone(net(), saved(dict(resnet(), **{'conv1.bias': bias})))


def under(prefix, state):
    return {f'{prefix}.{name}': value for name, value in state.items()}


HEADS = {'fc.0.weight': torch.ones(2, 2), 'projector.weight': torch.ones(2)}
FILES = {
    'moco': lambda s: dict(
        state_dict=under('module.encoder_q', s | HEADS) | {'module.queue': torch.ones(4, 4)}
    ),
    'byol': lambda s: under('online_encoder', s) | {'target.weight': torch.ones(1), 'step': 7},
    'dino': lambda s: dict(student=under('module.backbone', s), teacher=under('backbone', s)),
    'bare': lambda s: dict(model=s | HEADS | {'queue': torch.ones(4)}),
    'detector': lambda s: under('backbone', s) | {'neck.weight': torch.ones(2)},
}
PREFIXES = [
    ('moco', 'module.encoder_q', 'module.queue'),
    ('moco', 'module.encoder_q.', 'projector.weight'),
    ('moco', 'encoder_q', 'fc.0.weight'),
    ('byol', 'online_encoder', 'target.weight'),
    ('byol', 'online_encoder', 'step'),
    ('dino', 'teacher', 'student.module.backbone.conv1.weight'),
    ('dino', 'teacher.backbone', 'student.module.backbone.conv1.weight'),
    ('dino', 'student.module.backbone', 'teacher.backbone.conv1.weight'),
    ('bare', None, 'queue'),
    ('bare', '', 'projector.weight'),
    ('detector', None, 'neck.weight'),
    ('detector', 'backbone', 'neck.weight'),
]


@pytest.mark.parametrize(('file', 'prefix', 'left_out'), PREFIXES)
def test_prefixes_as_they_stand_in_the_file(saved, file, prefix, left_out):
    state = resnet()
    model = net()
    report = load_backbone(model, saved(FILES[file](state)), prefix)
    own = model.state_dict()
    assert all(torch.equal(own[name], value) for name, value in state.items())
    assert left_out in report.left_out
    assert len(report.loaded) == len(state)


@pytest.mark.parametrize('file', ['moco', 'byol', 'dino'])
@pytest.mark.parametrize('prefix', [None, 'encoder_k', 'module.backbone'])
def test_a_wrong_prefix_names_those_that_are_there(saved, file, prefix):
    there = dict(moco='encoder_q', byol='online_encoder', dino='teacher.backbone')[file]
    with pytest.raises(CheckpointError, match=there):
        load_backbone(net(), saved(FILES[file](resnet())), prefix)


def test_a_prefix_without_any_resnet_names_the_beginnings(saved):
    with pytest.raises(CheckpointError, match=r"'x'; its names begin with features\.$"):
        load_backbone(net(), saved({'features.0.weight': torch.ones(1)}), 'x')


@pytest.mark.parametrize('name', ['layer1.0.se.weight', 'bn2.weight', 'conv2.weight', 'layer0.w'])
def test_parts_of_another_resnet_are_no_heads(saved, name):
    with pytest.raises(CheckpointError, match='not in the model'):
        load_backbone(net(), saved(resnet() | {name: torch.ones(1)}))


@pytest.mark.parametrize('channels', [1, 4, 6])
@pytest.mark.parametrize('stem', [dict(), dict(deep_stem=True)], ids=['plain', 'deep'])
def test_other_images(saved, channels, stem, caplog):
    name = 'stem.0.weight' if stem else 'conv1.weight'
    state = resnet(**stem)
    model = net(in_channels=channels, **stem)
    before = model.state_dict()[name].clone()
    with caplog.at_level(logging.WARNING):
        report = load_backbone(model, saved(state))
    own = model.state_dict()
    assert torch.equal(own[name], before)
    assert all(torch.equal(own[n], v) for n, v in state.items() if n != name)
    assert name in report.new and name in report.left_out
    with pytest.raises(CheckpointError, match=f'frozen_stages=0 would freeze it.*|{name}') as error:
        load_backbone(net(in_channels=channels, frozen_stages=0, **stem), saved(state))
    assert f'in_channels={channels} leaves {name} new' in str(error.value)
    load_backbone(net(in_channels=3, frozen_stages=0, **stem), saved(state))


def test_another_kernel_is_no_other_image(saved):
    state = resnet() | {'conv1.weight': torch.ones(8, 3, 3, 3)}
    with pytest.raises(CheckpointError, match=r'other shapes.*conv1\.weight'):
        load_backbone(net(in_channels=4), saved(state))


LOADERS = dict(
    mmengine=lambda model, path: load_checkpoint(model, path, map_location='cpu'),
    ours=load_backbone,
    torch=lambda model, path: model.load_state_dict(torch.load(path), strict=False),
)
each_loader = pytest.mark.parametrize('load', LOADERS.values(), ids=LOADERS)


@each_loader
@pytest.mark.parametrize(
    'attention', [BASE, dict(type='MRLABase', head_channels=8)], ids=['DLA', 'MRLA']
)
def test_scales_of_the_start_as_identity(saved, load, attention):
    """Weights that were trained with ``zero_init_attention`` or without it give the same maps."""
    for first, second in ((True, False), (False, True), (True, True)):
        source = lively(net(attention, zero_init_attention=first))
        model = net(attention, zero_init_attention=second).eval()
        load(model, saved(source.state_dict()))
        torch.testing.assert_close(model(images()), source(images()))
        for n, p in model.named_parameters():
            assert p.requires_grad, n


def test_a_scale_is_announced_and_learns(saved):
    source = lively(net(BASE, zero_init_attention=True))
    model = net(BASE)
    with pytest.warns(UserWarning, match='zero_init_attention=True'):
        load_checkpoint(model, saved(source.state_dict()), map_location='cpu')
    model(images())[-1].square().mean().backward()
    scales = [p for n, p in model.named_parameters() if n.endswith('.scale')]
    assert len(scales) == 8 and all(p.grad is not None for p in scales)


def test_a_resnet_leaves_the_scales_at_zero(saved):
    model = net(BASE, zero_init_attention=True)
    load_checkpoint(model, saved(resnet()), map_location='cpu')
    assert all((v == 0).all() for n, v in model.state_dict().items() if n.endswith('.scale'))


MRLA = dict(type='MRLALight', head_channels=8)
OTHERS = {
    'type': (MRLA, LIGHT, 'not in the checkpoint.*dsu'),
    'type back': (LIGHT, MRLA, 'not in the model.*dsu'),
    'base to light': (BASE, LIGHT, 'not in the checkpoint.*lambda_'),
    'reduction': (LIGHT, dict(LIGHT, reduction=2), 'other shapes.*dsu'),
    'form': (LIGHT, dict(LIGHT, form='shared'), 'not in the checkpoint.*from_cy'),
    'kernel': (MRLA, dict(MRLA, kernel_size=7), 'other shapes.*query'),
    'norm': (MRLA, dict(MRLA, norm_cfg=dict(type='GN', num_groups=2)), 'not in the model.*running'),
    'se': (dict(type='SE', reduction=4), dict(type='ECA'), 'not in the checkpoint'),
}


@pytest.mark.parametrize('load', [LOADERS['mmengine'], LOADERS['torch']], ids=['mmengine', 'torch'])
@pytest.mark.parametrize('case', OTHERS)
def test_another_attention_is_refused(saved, case, load):
    theirs, ours, words = OTHERS[case]
    whole = nn.ModuleDict(dict(backbone=net(theirs)))
    with pytest.raises(CheckpointError, match=f'(?s)backbone.layer1.attention.*{words}'):
        load(nn.ModuleDict(dict(backbone=net(ours))), saved(whole.state_dict()))


def test_half_an_attention_is_refused_and_none_is_not(saved):
    state = net().state_dict()
    half = {k: v for k, v in state.items() if 'dsu' not in k}
    with pytest.raises(CheckpointError, match=r'not in the checkpoint.*dsu'):
        load_checkpoint(net(), saved(half), map_location='cpu')
    load_checkpoint(net(), saved(resnet()), map_location='cpu')


def test_counters_of_batches_may_be_missing(saved):
    state = {k: v for k, v in net().state_dict().items() if 'num_batches' not in k}
    load_checkpoint(net(), saved(state), map_location='cpu')


def test_weight_norm_translates_its_old_names():
    model = net(MRLA)
    value = model.layer1.attention.blocks[0].value
    nn.utils.parametrizations.weight_norm(value)
    state = dict(model.state_dict())
    prefix = 'layer1.attention.blocks.0.value.'
    state[f'{prefix}weight_g'] = state.pop(f'{prefix}parametrizations.weight.original0') * 2
    state[f'{prefix}weight_v'] = state.pop(f'{prefix}parametrizations.weight.original1')
    before = value.weight.clone()
    model.load_state_dict(state)
    torch.testing.assert_close(value.weight, 2 * before)


def stages_of(state, numbers):
    return {k: v for k, v in state.items() if k[:5] != 'layer' or int(k[5]) in numbers}


def test_stages(saved):
    """All of the model's stages must be there; others, up to a ResNet's four, may be."""
    state = resnet()
    three = dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1))
    with pytest.raises(CheckpointError, match=r'not in the checkpoint \(\d+\): layer4\.0\.'):
        load_backbone(net(), saved(stages_of(state, (1, 2, 3))))
    report = load_backbone(net(**three), saved(state))
    assert {name[:6] for name in report.left_out} == {'layer4'}
    fifth = {k.replace('layer4', 'layer5'): v for k, v in state.items() if 'layer4' in k}
    for model in (net(), net(**three)):
        with pytest.raises(CheckpointError, match=r'not in the model \(\d+\): layer5\.0\.'):
            load_backbone(model, saved(state | fifth))


def test_only_the_attention_of_frozen_stages_is_asked_for(saved):
    path = saved(resnet())
    with pytest.raises(CheckpointError, match='freeze_attention') as caught:
        load_backbone(net(frozen_stages=1, freeze_attention=True), path)
    assert 'layer1.attention' in str(caught.value) and 'layer2' not in str(caught.value)
    load_backbone(net(frozen_stages=0, freeze_attention=True), path)
    load_backbone(net(frozen_stages=1), path)
    load_backbone(net(frozen_stages=1, freeze_attention=True, zero_init_attention=True), path)


@pytest.mark.parametrize(
    ('arguments', 'warned'),
    [
        (dict(frozen_stages=1, freeze_attention=True), True),
        (dict(frozen_stages=0, freeze_attention=True), False),
        (dict(frozen_stages=1), False),
        (dict(frozen_stages=1, freeze_attention=True, layer_attention=None), False),
        (dict(freeze_attention=True), False),
    ],
    ids=str,
)
def test_the_warning_on_random_attention_that_is_frozen(saved, arguments, warned):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        net(**arguments).init_weights()
    assert warned == any('random attention' in str(w.message) for w in caught)
    trained = dict(type='Pretrained', checkpoint=saved(lively(net()).state_dict()))
    if arguments.get('layer_attention', LIGHT):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            net(**arguments, init_cfg=trained).init_weights()
        assert not any('random attention' in str(w.message) for w in caught)
