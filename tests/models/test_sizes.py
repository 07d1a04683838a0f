"""Parameters of the models, as counted for the releases (millions, with the classifier)."""

import pytest
import torch

from mmdla import DLAResNet, DLAResNet_CIFAR

IMAGENET = [
    (50, None, {}, 25.557),
    (101, None, {}, 44.549),
    (50, dict(type='DLALight', reduction=16), {}, 28.582),
    (101, dict(type='DLALight', reduction=16), {}, 47.783),
    (50, dict(type='DLALight', reduction=20), {}, 28.012),
    (101, dict(type='DLALight', reduction=20), {}, 47.214),
    (50, dict(type='MRLALight'), {}, 25.738),
    (50, dict(type='MRLABase'), dict(deep_stem=True), 25.743),
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
]


def millions(model, classes):
    head = classes * (model.feat_dim + 1)
    return (sum(p.numel() for p in model.parameters()) + head) / 1e6


@pytest.mark.parametrize(('depth', 'attention', 'options', 'expected'), IMAGENET)
def test_imagenet(depth, attention, options, expected):
    with torch.device('meta'):
        model = DLAResNet(depth, layer_attention=attention, **options)
    assert round(millions(model, 1000), 3) == expected


@pytest.mark.parametrize(('depth', 'kind', 'expected'), CIFAR)
def test_cifar100(depth, kind, expected):
    with torch.device('meta'):
        model = DLAResNet_CIFAR(depth, layer_attention=kind and dict(type=kind, reduction=4))
    assert round(millions(model, 100), 4) == expected
