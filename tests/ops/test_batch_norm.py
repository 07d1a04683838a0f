"""Running statistics as PyTorch's layer keeps them, by the kernel and by the reference."""

import copy

import pytest
import torch
from torch import nn

from mmdla.ops import backend
from mmdla.ops.batch_norm import (
    affine_of,
    combine,
    statistics_of,
    unsupported_reason,
    update_statistics,
)


@pytest.fixture(params=['kernel', 'reference'])
def each_form(request, monkeypatch):
    if request.param == 'reference':
        monkeypatch.setattr(backend, 'vector_kernels', lambda *_: None)


def lively(**options) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(3, **options).double()
    make = torch.Generator().manual_seed(0)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.copy_(torch.rand(3, generator=make) + 0.5)
    return norm


@pytest.mark.parametrize('momentum', [0.1, 0.7, 0.0, 1.0, None])
@pytest.mark.parametrize('shape', [(2, 3, 4, 5), (1, 3, 1, 2)], ids=str)
def test_updated_as_by_the_layer(each_form, momentum, shape):
    norm = lively(momentum=momentum)
    theirs = copy.deepcopy(norm)
    for step in range(3):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(step)).double()
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        update_statistics(norm, mean, var, x.numel() // 3)
        theirs(x)
    torch.testing.assert_close(dict(norm.named_buffers()), dict(theirs.named_buffers()))
    assert norm.num_batches_tracked == 3


def test_one_value_per_channel(each_form):
    """PyTorch's layer refuses it; a process of a synchronized one may have it."""
    norm = lively(momentum=0.5)
    before = norm.running_mean.clone(), norm.running_var.clone()
    update_statistics(norm, torch.ones(3).double(), torch.full((3,), 2.0).double(), 1)
    torch.testing.assert_close(norm.running_mean, (before[0] + 1) / 2)
    torch.testing.assert_close(norm.running_var, (before[1] + 2) / 2)


def test_statistics_that_are_kept_as_they_are(each_form):
    norm = lively()
    norm.track_running_stats = False
    before = copy.deepcopy(norm.state_dict())
    update_statistics(norm, torch.ones(3).double(), torch.ones(3).double(), 6)
    torch.testing.assert_close(norm.state_dict(), before, rtol=0, atol=0)


def test_statistics_of_a_batch_from_those_of_its_planes():
    x = torch.randn(4, 3, 5, 2, dtype=torch.float64) + 7
    means = x.mean((2, 3))  # (B, C)
    m2 = (x - means[..., None, None]).square().sum((2, 3))
    var, mean = torch.var_mean(x, (0, 2, 3), unbiased=False)
    torch.testing.assert_close(combine(means, m2, 10), (mean, var))


def test_affine_of_running_statistics():
    norm = lively(eps=0.3).eval()
    scale, shift = affine_of(statistics_of(norm), norm.eps)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(x * scale[:, None, None] + shift[:, None, None], norm(x))


@pytest.mark.parametrize(
    ('shape', 'training', 'reason'),
    [
        ((1, 3, 1, 1), True, 'more than one value per channel'),
        ((1, 3, 1, 1), False, None),
        ((2, 3, 1, 1), True, None),
        ((1, 3, 2, 1), True, None),
    ],
)
def test_batches_of_one_value(shape, training, reason):
    x, norm = torch.randn(shape), nn.BatchNorm2d(3).train(training)
    got = unsupported_reason(x, norm, nn.Identity())
    assert got is None if reason is None else reason in got


@pytest.mark.parametrize(
    ('norm', 'drop_path', 'words'),
    [
        (nn.BatchNorm1d(3), nn.Identity(), 'got BatchNorm1d'),
        (nn.BatchNorm2d(3, affine=False), nn.Identity(), 'affine BatchNorm2d'),
        (nn.BatchNorm2d(3, track_running_stats=False), nn.Identity(), 'running statistics'),
        (nn.BatchNorm2d(3).half(), nn.Identity(), r'torch.float16, maps torch.float32'),
        (nn.BatchNorm2d(3), nn.Dropout(), 'DropPath, got Dropout'),
    ],
)
def test_layers_that_fused_operations_cannot_have(norm, drop_path, words):
    assert words in unsupported_reason(torch.randn(2, 3, 4, 4), norm, drop_path)
    assert unsupported_reason(torch.randn(2, 3, 4, 4), nn.BatchNorm2d(3), nn.Identity()) is None
