"""Parameters (millions) and multiply-adds (1e9) of the models with their classifiers.

The numbers are those counted for the releases, without weights that no output of theirs depends on,
but for the multiply-adds of DLA-L (4.209, 8.000), where what a state gives to the gates is computed
once for the two steps from it, and for RLA, whose first block here does not read zeros: 2,048 weights
and 6.4 million multiply-adds less.
"""

import pytest
import torch

from mmdla import DLAResNet, DLAResNet_CIFAR
from mmdla.analysis.complexity import count_macs

IMAGENET = [
    (50, None, {}, 25.557, 4.089),
    (101, None, {}, 44.549, 7.801),
    (50, dict(type='DLALight', reduction=16), {}, 28.582, 4.205),
    (101, dict(type='DLALight', reduction=16), {}, 47.783, 7.992),
    (50, dict(type='DLALight', reduction=20), {}, 28.012, None),
    (101, dict(type='DLALight', reduction=20), {}, 47.214, None),
    (50, dict(type='MRLALight'), {}, 25.738, 4.139),
    (50, dict(type='MRLABase'), dict(deep_stem=True), 25.743, 4.391),
    (50, dict(type='KCLA'), {}, 25.850, 4.162),
    (101, dict(type='KCLA'), {}, 45.040, 7.905),
    (50, dict(type='RLA', append_state=True), {}, 25.869, 4.448),
    (50, dict(type='RLA', append_state=True, eca=True), {}, 25.869, 4.448),
    (101, dict(type='RLA', append_state=True), {}, 45.001, 8.328),
]
CIFAR = [
    (20, None, 0.2435),
    (56, None, 0.6145),
    (110, None, 1.1709),
    (20, 'DLABase', 0.4284),
    (56, 'DLABase', 0.8191),
    (110, 'DLABase', 1.4053),
    (20, 'DLALight', 0.4333),
    (56, 'DLALight', 0.8258),
    (110, 'DLALight', 1.4147),
    (56, 'KCLA', 0.6500),
    (110, 'KCLA', 1.2382),
]


def millions(model, classes):
    head = classes * (model.feat_dim + 1)
    return (sum(p.numel() for p in model.parameters()) + head) / 1e6


@pytest.mark.parametrize(('depth', 'attention', 'options', 'parameters', 'macs'), IMAGENET)
def test_imagenet(depth, attention, options, parameters, macs):
    with torch.device('meta'):
        model = DLAResNet(depth, layer_attention=attention, **options).eval()
    assert round(millions(model, 1000), 3) == parameters
    if macs is not None:
        head = model.feat_dim * 1000
        assert round((count_macs(model, model, (224, 224)) + head) / 1e9, 3) == macs


@pytest.mark.parametrize(('depth', 'kind', 'expected'), CIFAR)
def test_cifar100(depth, kind, expected):
    attention = kind and dict(type=kind, reduction=4)
    if kind == 'KCLA':
        attention = dict(type=kind, head_channels=16, restart_block=None)
    with torch.device('meta'):
        model = DLAResNet_CIFAR(depth, layer_attention=attention)
    assert round(millions(model, 100), 4) == expected
