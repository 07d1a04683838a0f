"""Without gradients the fast path overwrites and skips maps; what comes out is the same."""

import pytest
import torch
from torch import nn

from mmdla import DLAResNet
from mmdla.ops import (
    Weights,
    full_attention,
    join,
    join_normed,
    light_attention_of_join,
    pools_of_join,
)
from mmdla.ops import light_attention as light
from mmdla.ops.backend import BACKENDS

KINDS = ['DLALight', 'MRLALight', 'DLABase', 'MRLABase']


def network(kind, ops, **kwargs):
    torch.manual_seed(0)
    attention = dict(type=kind, ops=ops, head_channels=16)
    model = DLAResNet(18, base_channels=16, stem_channels=16, layer_attention=attention, **kwargs)
    model = model.double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize('kind', KINDS)
def test_inference(kind):
    images = torch.randn(2, 3, 70, 52, dtype=torch.float64)
    outs = []
    with torch.no_grad():
        for ops in ('reference', 'fast'):
            model = network(kind, ops).eval()
            outs.append(model(images))
            for a, b in zip(outs[-1], model(images), strict=True):
                assert torch.equal(a, b)
    for reference, got in zip(*outs, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('kind', KINDS)
def test_frozen_stages_in_training(kind):
    """A frozen stage needs no gradients amid a pass that does."""
    images = torch.randn(2, 3, 70, 52, dtype=torch.float64)
    results = []
    for ops in ('reference', 'fast'):
        model = network(kind, ops, frozen_stages=2, norm_eval=True).train()
        outs = model(images)
        sum(out.square().mean() for out in outs).backward()
        results.append([*outs, *(p.grad for p in model.parameters() if p.grad is not None)])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('triton', [False, True], ids=['compiled', 'triton'])
@pytest.mark.parametrize('shape', [(2, 3, 7, 5), (1, 2, 1, 1), (1, 1, 40, 33)], ids=str)
@pytest.mark.parametrize('normed', [False, True])
def test_light_attention_of_join(shape, triton, normed, monkeypatch):
    if triton:
        monkeypatch.setitem(BACKENDS, 'cpu', BACKENDS['cuda'])
    batch, channels = shape[:2]
    r, s = torch.randn(2, *shape, dtype=torch.float64)
    weights = Weights(
        torch.rand(batch, channels).double(),
        torch.randn(channels, 1, 3, 3).double(),
        torch.randn(channels, 1, 1).double(),
        torch.rand(batch, channels).double(),
        torch.randn(channels, 1, 3, 3).double(),
    )
    norm, last = (nn.BatchNorm2d(channels).double().eval() for _ in range(2))
    for tensor in (last.weight.data, last.bias.data, last.running_mean, last.running_var):
        tensor.uniform_(0.5, 1.5)
    last = last if normed else None
    normed_r = last(r).detach() if normed else r.clone()
    x, _ = join(normed_r, s, 'reference')
    expected = light(x, s, weights, norm, nn.Identity(), 'reference')
    means = x.mean((2, 3)), s.mean((2, 3))
    with torch.no_grad():
        for got, mean in zip(pools_of_join(r, s, last)[:2], means, strict=True):
            torch.testing.assert_close(got, mean)
        if normed:
            joined, pooled = join_normed(r.clone(), s, last)
            torch.testing.assert_close(joined, x)
            torch.testing.assert_close(tuple(pooled[:2]), means)
        got = light_attention_of_join(r, s, weights, norm, nn.Identity(), last)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize('triton', [False, True], ids=['compiled', 'triton'])
@pytest.mark.parametrize('free', [False, True])
def test_full_attention_with_free_input(free, triton, monkeypatch):
    if triton:
        monkeypatch.setitem(BACKENDS, 'cpu', BACKENDS['cuda'])
    x, *values = torch.randn(4, 2, 3, 7, 5, dtype=torch.float64)
    weights, norm = torch.rand(2, 3, 3).double(), nn.BatchNorm2d(3).double().eval()
    scale = torch.rand(3, 1, 1).double()
    arguments = weights, tuple(values), norm, nn.Identity(), scale, None
    expected = full_attention(x, *arguments, 'reference')
    kept = x.clone()
    with torch.no_grad():
        got = full_attention(x, *arguments, 'fast', x_is_free=free)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
    assert free or torch.equal(x, kept)


@pytest.mark.parametrize('shape', [(2, 64, 7, 7), (1, 16, 33, 41)], ids=str)
def test_normed_join_is_bit_for_bit_that_of_pytorch(shape):
    norm = nn.BatchNorm2d(shape[1]).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.3, 2)
    r, s = 10 * torch.randn(2, *shape)
    with torch.no_grad():
        expected = (norm(r) + s).relu()
        assert torch.equal(join_normed(r, s, norm)[0], expected)


def test_norms_that_are_observed_are_not_fused():
    model = network('DLALight', 'fast').eval()
    seen = []
    model.layer1[0].bn2.register_forward_hook(lambda *_: seen.append('norm'))
    model.layer1[1].register_forward_hook(lambda _, __, out: seen.append(out[0].mean().item()))
    images = torch.randn(1, 3, 40, 40).double()
    with torch.no_grad():
        model(images)
    fused = seen.copy()
    seen.clear()
    model(images)  # with gradients nothing is fused
    assert fused[0] == seen[0] == 'norm'
    assert fused[1] == pytest.approx(seen[1])


def test_nan_is_not_hidden():
    for kind in KINDS:
        model = network(kind, 'fast').eval()
        heads = model.layer4.attention.blocks[-1]
        nn.init.constant_(heads.value.weight, torch.nan)
        with torch.no_grad():
            assert model(torch.randn(1, 3, 40, 40).double())[-1].isnan().all()
