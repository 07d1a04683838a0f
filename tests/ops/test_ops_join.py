"""The fused end of a block computes what addition, ReLU and pooling do."""

import copy

import pytest
import torch
from test_ops_light import batch_norm, inputs
from torch import nn

from mmdla.ops import join, light_attention
from mmdla.ops.join import Handover, Join


@pytest.mark.parametrize('shape', [(2, 3, 5, 7), (1, 2, 1, 1), (2, 2, 40, 33)], ids=str)
def test_equals_reference(shape):
    torch.manual_seed(0)
    r, s = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    g, gx, gs = torch.randn(shape).double(), torch.randn(shape[:2]), torch.randn(shape[:2])
    results = []
    for ops in ('reference', 'fast'):
        x, pooled = join(r * 1, s, ops)
        if ops == 'reference':
            assert pooled is None
            pooled = x.mean((2, 3)), s.mean((2, 3))
        total = (x * g).sum() + (pooled[0] * gx).sum() + (pooled[1] * gs).sum()
        results.append([x, *pooled[:2], *torch.autograd.grad(total, (r, s))])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    r, s = (torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda r, s: Join.apply(r * 1, s, Handover()), (r, s))


def test_overwrites_the_residual_and_passes_nan_on():
    r, s = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    r[0, 0, 0, 0] = torch.nan
    expected = (r + s).relu()
    x, _ = join(r, s, 'fast')
    assert x.data_ptr() == r.data_ptr()
    torch.testing.assert_close(x, expected, equal_nan=True)


@pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])
def test_handover_of_a_gradient(training):
    """However the backward pass is asked for: whole, of one input, of weights alone, twice."""
    x, s, weights = inputs((2, 3, 5, 4))
    norm = batch_norm(3, training)
    twin = copy.deepcopy(norm)
    expected = light_attention((x + s).relu(), s, weights, twin, nn.Identity(), 'reference')
    joined, pooled = join(x * 1, s, 'fast')
    out = light_attention(joined, s, weights, norm, nn.Identity(), 'fast', pooled.handover)
    g = torch.randn_like(out)
    for asked in ([x, s], [s], [weights.a], [x], [s, weights.value], [x, s, *weights]):
        for got, want in zip(
            torch.autograd.grad(out, asked, g, retain_graph=True),
            torch.autograd.grad(expected, asked, g, retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    assert pooled.handover.gradient is None
