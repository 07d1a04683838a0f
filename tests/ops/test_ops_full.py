"""The fast path of sums over blocks computes what the reference computes."""

import copy

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from test_ops_light import batch_norm
from torch import nn

from mmdla import DLAResNet, DLAResNet_CIFAR
from mmdla.ops import Pending, full_attention

SHAPES = [(2, 4, 8, 8), (2, 3, 1, 1), (3, 2, 7, 5), (1, 2, 40, 33)]


def stage(x, weights, values, norms, scale, drop_path, ops):
    """Three blocks in a row, every one over the values so far."""
    pending, out, maps = Pending(3), x, ()
    for index in range(3):
        maps = (*maps, values[index] * out)  # the values depend on the block, as in the network
        out = full_attention(
            out, weights[index], maps, norms[index], drop_path, scale, pending, ops
        )
    assert ops != 'fast' or not pending.gradients
    return out


def inputs(shape):
    torch.manual_seed(0)

    def leaf(*size):
        return torch.randn(*size, dtype=torch.float64).requires_grad_()

    batch, channels = shape[:2]
    weights = [leaf(batch, m, channels) for m in (1, 2, 3)]
    return leaf(*shape), weights, [leaf(*shape) for _ in range(3)], leaf(channels, 1, 1)


@pytest.mark.parametrize('rate', [0.0, 0.5])
@pytest.mark.parametrize('scaled', [True, False])
@pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_equals_reference(shape, training, scaled, rate):
    x, weights, values, scale = inputs(shape)
    norms = nn.ModuleList(batch_norm(shape[1], training) for _ in range(3))
    norms.train(training)
    g = torch.randn(shape, dtype=torch.float64)
    results = []
    for ops in ('reference', 'fast'):
        own = copy.deepcopy(norms)
        torch.manual_seed(1)
        drop_path = DropPath(rate).train()
        out = stage(x, weights, values, own, scale if scaled else None, drop_path, ops)
        leaves = [x, *weights, *values, *own.parameters(), *([scale] if scaled else [])]
        results.append([out, *torch.autograd.grad(out, leaves, g), *own.buffers()])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])
def test_gradcheck(training):
    x, weights, values, scale = inputs((2, 2, 2, 3))
    norms = [batch_norm(2, training) for _ in range(3)]
    for norm in norms:
        norm.momentum = 0.0  # gradcheck calls them many times

    def function(x, *rest):
        return stage(x, rest[:3], rest[3:6], norms, rest[6], nn.Identity(), 'fast')

    assert torch.autograd.gradcheck(function, (x, *weights, *values, scale))


def test_two_backward_passes_and_a_broken_one():
    x, weights, values, scale = inputs((2, 2, 4, 4))
    norms = [batch_norm(2, True) for _ in range(3)]
    out = stage(x, weights, values, norms, scale, nn.Identity(), 'fast')
    first = torch.autograd.grad(out.sum(), values, retain_graph=True)
    torch.autograd.grad(out.sum(), [weights[2]], retain_graph=True)  # ends before the first block
    again = torch.autograd.grad(out.sum(), values)
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('kind', ['DLABase', 'MRLABase'])
@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize(
    'make',
    [lambda **kw: DLAResNet(18, frozen_stages=1, **kw), lambda **kw: DLAResNet_CIFAR(29, **kw)],
)
def test_networks_agree(kind, with_cp, make):
    results = []
    for ops in ('reference', 'fast'):
        torch.manual_seed(0)
        model = make(layer_attention=dict(type=kind, ops=ops, head_channels=16), with_cp=with_cp)
        model = model.double().train()
        torch.manual_seed(1)
        outs = model(torch.randn(2, 3, 36, 28, dtype=torch.float64))
        sum(out.square().mean() for out in outs).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([*outs, *grads, *model.buffers()])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-8, atol=1e-9)
