"""Small backbones with every attention, and what the tests of PyTorch's tools compare."""

import pytest
import torch
from attention_lists import FUSED, OTHERS, small
from torch import nn

from mmdla import DLAResNet

KINDS = (*FUSED, *OTHERS, None)
EVERY = pytest.mark.parametrize('kind', KINDS)
MODES = pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])


def make(kind, ops='auto', dtype=torch.float64, num_stages=2):
    torch.manual_seed(0)
    attention = small(kind)
    if kind in FUSED:
        attention['ops'] = ops
    model = DLAResNet(
        18,
        base_channels=8,
        num_stages=num_stages,
        strides=(1, 2, 2, 2)[:num_stages],
        dilations=(1,) * num_stages,
        out_indices=tuple(range(num_stages)),
        zero_init_residual=False,
        layer_attention=attention,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.weight, 0.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.to(dtype)


def images(*shape, seed=1, dtype=torch.float64):
    return torch.rand(
        *(shape or (2, 3, 32, 32)), generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def agree(got, expected, tolerance=1e-9):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def loss_of(outs):
    return sum(
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
        for out in outs
    )


def gradients(model, x):
    model.zero_grad()
    loss_of(model(x)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same_gradients(got, expected, tolerance=1e-8):
    assert got.keys() == expected.keys()
    floor = max(g.abs().max() for g in expected.values())
    for name, g in expected.items():
        assert (got[name] - g).abs().max() <= tolerance * (g.abs().max() + 1e-4 * floor), name


def reference(kind, training=False):
    return make(kind, 'reference').train(training)


def named_gradients(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
