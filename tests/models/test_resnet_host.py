"""Without attention, the backbone is the host libraries' ResNet, bit for bit."""

import inspect

import pytest
import torch
from mmdet.models.backbones import ResNet as DetResNet
from mmdet.models.backbones import ResNetV1d as DetResNetV1d
from mmdet.models.backbones import ResNeXt as DetResNeXt
from mmengine.registry import DefaultScope
from mmpretrain.models.backbones import ResNet as PretrainResNet
from mmpretrain.models.backbones import ResNetV1c as PretrainResNetV1c
from mmpretrain.models.backbones import ResNetV1d as PretrainResNetV1d
from mmpretrain.models.backbones import ResNeXt as PretrainResNeXt

from mmdla import DLAResNet, DLAResNeXt
from mmdla.checkpoint.names import to_our_names
from mmdla.models.resnet import DLAResNetV1c, DLAResNetV1d

ALL = dict(out_indices=(0, 1, 2, 3), base_channels=16, stem_channels=16)
V1D = dict(deep_stem=True, avg_down=True)
CASES = [
    (host, dict(depth=depth, **options), dict(depth=depth, **options))
    for host in (DetResNet, PretrainResNet)
    for depth in (18, 50)
    for options in (
        dict(style='pytorch'),
        dict(style='caffe'),
        dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2)),
        dict(num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1), out_indices=(0, 2)),
        dict(base_channels=32, stem_channels=16, in_channels=4),
        dict(norm_cfg=dict(type='GN', num_groups=8)),
    )
] + [
    (DetResNetV1d, dict(depth=18), dict(depth=18, **V1D)),
    (DetResNetV1d, dict(depth=50), dict(depth=50, **V1D)),
    (PretrainResNetV1c, dict(depth=18), dict(depth=18, deep_stem=True)),
    (PretrainResNetV1d, dict(depth=18), dict(depth=18, **V1D)),
    (PretrainResNetV1d, dict(depth=50), dict(depth=50, **V1D)),
    (
        DetResNeXt,
        dict(depth=50, groups=32, base_width=4),
        dict(depth=50, groups=32, base_width=4),
    ),
    (
        PretrainResNeXt,
        dict(depth=50, groups=32, width_per_group=4),
        dict(depth=50, groups=32, width_per_group=4),
    ),
    (PretrainResNet, dict(depth=50, expansion=2), dict(depth=50, expansion=2)),
    (
        DetResNet,
        dict(
            depth=50,
            plugins=[
                dict(cfg=dict(type='ContextBlock', ratio=1 / 16), position='after_conv3'),
                dict(
                    cfg=dict(type='ContextBlock', ratio=1 / 4, postfix='_b'),
                    stages=(False, True, False, True),
                    position='after_conv2',
                ),
            ],
        ),
        None,
    ),
    (
        DetResNet,
        dict(
            depth=50,
            dcn=dict(type='DCNv2', deform_groups=1, fallback_on_stride=False),
            stage_with_dcn=(False, False, False, True),
        ),
        None,
    ),
]


def pair(host_class, host_args, our_args):
    """The host's model with lively weights, and ours with the same."""
    torch.manual_seed(0)
    host = host_class(**{**ALL, **host_args, 'norm_eval': False})
    our_args = host_args if our_args is None else our_args
    ours = DLAResNet(**{**ALL, **our_args}, layer_attention=None)
    for name, value in host.state_dict().items():
        if value.is_floating_point():
            if name.endswith('running_var'):
                value.uniform_(0.5, 1.5)
            elif value.ndim < 2:
                value.normal_(0.5, 0.2)
    ours.load_state_dict(to_our_names(host.state_dict(), ours.avg_down), strict=True)
    return host, ours


@pytest.mark.parametrize(
    'case', CASES, ids=lambda c: f'{c[0].__module__.split(".")[0]}-{c[0].__name__}-{c[1]}'
)
def test_equals_the_host(case):
    host, ours = pair(*case)
    x = torch.randn(2, case[1].get('in_channels', 3), 64, 96)
    for training in (False, True):
        host.train(training)
        ours.train(training)
        expected, got = host(x), ours(x)
        assert len(expected) == len(got)
        assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))
    sum(out.sum() for out in expected).backward()
    sum(out.sum() for out in got).backward()
    norms = [sorted(p.grad.norm().item() for p in m.parameters()) for m in (host, ours)]
    assert norms[0] == norms[1]


@pytest.mark.parametrize(
    ('scope', 'host_class', 'our_class', 'args'),
    [
        ('mmpretrain', PretrainResNetV1c, DLAResNetV1c, dict(base_channels=8, stem_channels=8)),
        ('mmpretrain', PretrainResNetV1d, DLAResNetV1d, dict(base_channels=8, stem_channels=8)),
        ('mmdet', DetResNetV1d, DLAResNetV1d, dict(base_channels=8, stem_channels=8)),
        ('mmpretrain', PretrainResNeXt, DLAResNeXt, {}),
        ('mmdet', DetResNeXt, DLAResNeXt, dict(groups=4)),
    ],
)
def test_variants_are_the_hosts(scope, host_class, our_class, args):
    """By their names alone, with the defaults of the library."""
    torch.manual_seed(0)
    args = dict(depth=50, norm_eval=False, **args)
    host = host_class(**args)
    with DefaultScope.overwrite_default_scope(scope):
        ours = our_class(**args, layer_attention=None)
    host.eval(), ours.eval()  # the host's return None
    ours.load_state_dict(to_our_names(host.state_dict(), ours.avg_down), strict=True)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(ours(x), host(x), strict=True))


@pytest.mark.parametrize('host', dict.fromkeys(case[0] for case in CASES), ids=repr)
def test_has_every_argument_of_the_host(host):
    """Those of its base classes too, which it passes on by ``**kwargs``."""
    signatures = [inspect.signature(cls.__init__) for cls in host.__mro__[:-1]]
    theirs = {
        name
        for signature in signatures
        for name, parameter in signature.parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    }
    module = {'self', 'init_cfg'}
    assert len(theirs - module) > 15
    assert theirs <= set(inspect.signature(DLAResNet.__init__).parameters) | module


def test_drop_path_is_the_hosts():
    host, ours = pair(PretrainResNet, dict(depth=18, drop_path_rate=0.5), None)
    host.train()
    ours.train()
    x = torch.randn(8, 3, 32, 32)
    outs = []
    for model in (host, ours):
        torch.manual_seed(3)
        outs.append(model(x)[-1])
    assert torch.equal(*outs)


@pytest.mark.parametrize('host_class', [DetResNet, PretrainResNet])
@pytest.mark.parametrize('frozen_stages', [-1, 0, 1, 4])
@pytest.mark.parametrize('norm_eval', [False, True])
def test_freezes_as_the_host(host_class, frozen_stages, norm_eval):
    args = dict(depth=18, frozen_stages=frozen_stages, norm_eval=norm_eval)
    host, ours = host_class(**args), DLAResNet(**args, layer_attention=None)
    host.train()
    assert ours.train() is ours
    assert {n: p.requires_grad for n, p in host.named_parameters()} == {
        n: p.requires_grad for n, p in ours.named_parameters()
    }
    modes = dict(ours.named_modules())
    for name, module in host.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert modes[name].training == module.training, name


def test_zero_init_residual_makes_blocks_the_identity():
    model = DLAResNet(depth=50, layer_attention=None)
    model.init_weights()
    assert all(not block.norm(3).weight.any() for stage in model.stages for block in stage)
