"""The fast path computes what the reference computes."""

import copy

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from torch import nn

from mmdla import DLAResNet
from mmdla.ops import Weights, light_attention
from mmdla.ops.light import TwoConvs, attention_map, fast, obstacle

SHAPES = [(2, 4, 8, 8), (2, 3, 1, 1), (3, 2, 7, 5), (2, 5, 1, 9), (2, 3, 40, 3), (1, 2, 2, 33)]


def inputs(shape, dtype=torch.float64, refreshed=True, first=False):
    torch.manual_seed(0)
    batch, channels = shape[:2]

    def leaf(*size):
        return torch.randn(*size, dtype=dtype).requires_grad_()

    weights = Weights(leaf(batch, channels), leaf(channels, 1, 3, 3), leaf(channels, 1, 1))
    if refreshed:
        d = leaf(1 if first else batch, channels)
        weights = weights._replace(d=d, extract=leaf(channels, 1, 3, 3))
    return leaf(*shape), leaf(*shape), weights


def batch_norm(channels, training, dtype=torch.float64):
    norm = nn.BatchNorm2d(channels, dtype=dtype).train(training)
    for value in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        value.uniform_(0.5, 1.5)
    return norm


def leaves(x, s, weights, norm):
    return [x, s, *(w for w in weights if w is not None), norm.weight, norm.bias]


@pytest.mark.parametrize('rate', [0.0, 0.5])
@pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])
@pytest.mark.parametrize('kind', ['mrla', 'dla', 'dla-first'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_equals_reference(shape, kind, training, rate):
    x, s, weights = inputs(shape, refreshed=kind != 'mrla', first=kind == 'dla-first')
    norm = batch_norm(shape[1], training)
    g = torch.randn(shape, dtype=torch.float64)
    results = []
    for ops in ('reference', 'fast'):
        own = copy.deepcopy(norm)
        torch.manual_seed(1)
        out = light_attention(x, s, weights, own, DropPath(rate).train(), ops)
        grads = torch.autograd.grad(out, leaves(x, s, weights, own), g)
        results.append([out, *grads, own.running_mean, own.running_var, own.num_batches_tracked])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-10, atol=1e-10)


def test_one_value():
    x, s, weights = inputs((1, 3, 1, 1))
    norm = batch_norm(3, True)
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        light_attention(x, s, weights, norm, nn.Identity())


@pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])
def test_gradcheck(training):
    x, s, weights = inputs((2, 2, 3, 4))
    norm = batch_norm(2, training)
    norm.momentum = 0.0  # gradcheck calls it many times

    def function(x, s, a, value, lambda_, d, extract, weight, bias):
        norm.weight, norm.bias = nn.Parameter(weight), nn.Parameter(bias)
        return fast(x, s, Weights(a, value, lambda_, d, extract), norm, nn.Identity())

    values = [x, s, *weights, norm.weight.detach(), norm.bias.detach()]
    assert torch.autograd.gradcheck(function, values)


def test_float32_is_as_near_to_float64_as_the_reference():
    x, s, weights = inputs((4, 32, 28, 28))
    norm = batch_norm(32, True)
    exact = x + norm(attention_map(x, s, weights))
    single = [t.detach().float() for t in (x, s)]
    norm32 = batch_norm(32, True, torch.float32)
    norm32.load_state_dict(
        {k: v.float() for k, v in norm.state_dict().items() if 'num' not in k}, strict=False
    )
    small = Weights(*(w.detach().float() for w in weights))
    with torch.no_grad():
        got = light_attention(*single, small, norm32, nn.Identity(), 'fast')
    error = (got.double() - exact).abs().max() / exact.abs().max()
    assert error < 1e-5


def test_large_mean_does_not_cancel():
    """A variance far below the squared mean survives in float32."""
    x, s, weights = inputs((4, 3, 16, 16), torch.float32)
    x = (x * 0.01 + 100).detach()
    weights = weights._replace(
        extract=torch.zeros(3, 1, 3, 3), d=torch.ones(4, 3), lambda_=torch.ones(3, 1, 1)
    )
    centre = torch.zeros(3, 1, 3, 3)
    centre[..., 1, 1] = 1
    weights = weights._replace(value=centre, a=torch.ones(4, 3))
    norm = nn.BatchNorm2d(3).train()
    with torch.no_grad():
        got = light_attention(x, s * 0.01, weights, norm, nn.Identity(), 'fast')
        exact = nn.BatchNorm2d(3).double().train()(x.double() + 0.01 * s.double()) + x.double()
    torch.testing.assert_close(got.double() - 100, exact - 100, rtol=0, atol=5e-3)


@pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])
def test_saves_nothing_but_the_maps(training):
    x, s, weights = inputs((2, 4, 16, 16))
    norm = batch_norm(4, training)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        light_attention(x, s, weights, norm, nn.Identity(), 'fast')
    maps = [t for t in kept if t.numel() >= x.numel()]
    assert {t.data_ptr() for t in maps} == {x.data_ptr(), s.data_ptr()}


def test_obstacles():
    x, s, weights = inputs((2, 4, 6, 6))
    norm = batch_norm(4, True)
    last = x.contiguous(memory_format=torch.channels_last)
    cases = [
        (last, s, norm, nn.Identity(), 'NCHW'),
        (x.half(), s, norm, nn.Identity(), 'float16'),
        (x, s, nn.GroupNorm(2, 4), nn.Identity(), 'GroupNorm'),
        (x, s, norm.float(), nn.Identity(), 'parameters are torch.float32'),
        (x.to('meta'), s, norm, nn.Identity(), 'meta'),
    ]
    for x_, s_, norm_, drop, words in cases:
        assert words in obstacle(x_, s_, norm_, drop)
        with pytest.raises(RuntimeError, match="ops='fast' cannot be used"):
            light_attention(x_, s_, weights, norm_, drop, 'fast')


@pytest.mark.parametrize('path', ['reference', 'fast'])
def test_variable_forces_a_path(monkeypatch, path):
    x, s, weights = inputs((2, 4, 6, 6))
    called = []
    monkeypatch.setattr(TwoConvs, 'apply', lambda *a: called.append('fast') or a[0])
    monkeypatch.setenv('MMDLA_OPS', path)
    light_attention(x, s, weights, batch_norm(4, False), nn.Identity())
    assert bool(called) == (path == 'fast')
    monkeypatch.setenv('MMDLA_OPS', 'quick')
    with pytest.raises(ValueError, match='MMDLA_OPS must be one of auto, reference, fast'):
        light_attention(x, s, weights, batch_norm(4, False), nn.Identity())


@pytest.mark.parametrize('kind', ['DLALight', 'MRLALight'])
@pytest.mark.parametrize('with_cp', [False, True])
def test_networks_agree(kind, with_cp):
    """A whole network, with frozen parts, in training: outputs, gradients, running statistics."""
    results = []
    for ops in ('reference', 'fast'):
        torch.manual_seed(0)
        model = DLAResNet(
            18, layer_attention=dict(type=kind, ops=ops), frozen_stages=1, with_cp=with_cp
        )
        model = model.double().train()
        torch.manual_seed(1)
        outs = model(torch.randn(2, 3, 70, 52, dtype=torch.float64))
        sum(out.square().mean() for out in outs).backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        results.append([*outs, *grads, *model.buffers()])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-8, atol=1e-9)
