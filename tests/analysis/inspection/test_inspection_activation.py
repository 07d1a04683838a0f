"""Maps of where a layer looks, against cases with a known answer."""

import pytest
import torch
from torch import nn

from mmdla import DLAResNet, DLAResNet_CIFAR
from mmdla.analysis.inspection.activation import activation_maps
from mmdla.errors import InputError


def classifier():
    """Global average pooling and a linear layer, where Grad-CAM has a closed form."""
    torch.manual_seed(0)
    backbone = DLAResNet_CIFAR(20, layer_attention=dict(type='DLALight', reduction=4))
    return nn.ModuleDict(dict(backbone=backbone, fc=nn.Linear(256, 10))).double().eval()


@pytest.mark.parametrize('frozen', [False, True])
def test_grad_cam_of_a_linear_classifier(frozen):
    model, images = classifier(), torch.randn(1, 3, 32, 32, dtype=torch.float64)
    model.requires_grad_(not frozen)

    def target():
        return model.fc(model.backbone(images)[-1].mean((2, 3)))[0, 3]

    (found,) = activation_maps(model, model.backbone, ['backbone.layer3'], target, pooled=True)
    with torch.no_grad():
        features = model.backbone(images)[-1][0]  # (256, 8, 8)
        cam = (model.fc.weight[3, :, None, None] * features).sum(0) / 64  # CAM over the places
    torch.testing.assert_close(found.evidence, cam.float())
    torch.testing.assert_close(found.strength, features.abs().mean(0).float())
    assert found.size == (32, 32)
    assert all(p.grad is None for p in model.parameters())


def test_evidence_by_place_is_the_slope():
    """Its sum is the derivative by a factor of the whole layer."""
    torch.manual_seed(0)
    model = DLAResNet(18, base_channels=32, layer_attention=dict(type='DLABase')).double().eval()
    images, factor = torch.randn(1, 3, 64, 64, dtype=torch.float64), [1.0]
    model.layer2.register_forward_hook(lambda _m, _a, out: out * factor[0])
    weights = [torch.randn(out.shape, dtype=torch.float64) for out in model(images)]

    def target():
        return sum((out * w).sum() for out, w in zip(model(images), weights, strict=True))

    names = ['layer1', 'layer2', 'layer4']
    maps = activation_maps(model, model, names, target, pooled=False)
    assert [one.layer for one in maps] == names
    with torch.no_grad():
        values = []
        for factor[0] in (1 + 1e-5, 1 - 1e-5):
            values.append(target())
    slope = (values[0] - values[1]) / 2e-5
    torch.testing.assert_close(maps[1].evidence.sum().double(), slope, rtol=1e-4, atol=1e-4)


def test_nothing_to_explain():
    model = classifier()

    def target():
        model.backbone(torch.randn(1, 3, 32, 32, dtype=torch.float64))

    (found,) = activation_maps(model, model.backbone, ['backbone.layer2'], target, pooled=True)
    assert found.evidence is None
    assert found.strength.shape == (16, 16)


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('backbone.layer9', 'no such layer; names like it are backbone.layer'),
        ('', 'no such layer'),
        ('fc', r'feature map \(B, C, H, W\), got shape \(1, 10\)'),
        ('backbone', r'feature map \(B, C, H, W\), got tuple'),
        ('backbone.layer1.attention.dsu', 'it ran 4 times'),
    ],
)
def test_bad_layers(name, message):
    model = classifier()

    def target():
        images = torch.randn(1, 3, 32, 32, dtype=torch.float64)
        return model.fc(model.backbone(images)[-1].mean((2, 3)))[0].max()

    with pytest.raises(InputError, match=message):
        activation_maps(model, model.backbone, [name], target, pooled=True)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
