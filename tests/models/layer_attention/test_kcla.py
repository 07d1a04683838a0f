"""KCLA beside its fixtures: constants, maps of zeros, odd sizes, restarts."""

import golden_models
import pytest
import torch

from mmdla import DLAResNet
from mmdla.models.layer_attention import KCLA
from mmdla.models.layer_attention.kcla import spread_constants


def stage(**options):
    torch.manual_seed(0)
    return KCLA(16, 4, head_channels=4, **options).double().eval()


def run(attention, maps, state=None):
    outs = []
    for index, x in enumerate(maps):
        out, state = attention(index, x, x, state)
        outs.append(out)
    return outs, state


def maps(count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(2, 16, 6, 5, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_constants_are_those_of_the_release():
    constants = golden_models.Fixture('imagenet_kcla_50').json['constants']
    for values in constants.values():
        expected = torch.tensor(values)
        torch.testing.assert_close(spread_constants(len(values)), expected, rtol=1e-6, atol=0)


def test_first_block_and_weights():
    """A mean of one map is that map, but for the 0.001; the state is the sum of all."""
    attention, (x, y, *_) = stage(), maps()
    outs, state = run(attention, [x])
    heads = attention.blocks[0]
    value = heads.value(
        x * (state.weights / (state.weights + 0.001)).repeat_interleave(4, 1)[..., None, None]
    )
    q, k = (conv(x.mean((2, 3))[:, None])[:, 0].view(2, 4, 4) for conv in (heads.query, heads.key))
    gate = heads.mix((q * k).sum(-1) / k.norm(dim=-1)).sigmoid().repeat_interleave(4, 1)
    expected = x + heads.norm(gate[..., None, None] * value).relu()
    torch.testing.assert_close(outs[0], expected)
    weights = (k.norm(dim=-1) / heads.constants).clamp(max=10).exp()
    torch.testing.assert_close(state.weights, weights)
    _, later = run(attention, [x, y])
    torch.testing.assert_close(
        later.maps[:, 0] - state.maps[:, 0], y[:, 0] * (later.weights - state.weights)[:, :1, None]
    )


def test_keys_beyond_the_clamp():
    attention, xs = stage(), [1e4 * x for x in maps()]
    outs, state = run(attention, xs)
    assert all(out.isfinite().all() for out in outs)
    torch.testing.assert_close(state.weights, torch.full_like(state.weights, 4 * torch.e**10))


def test_maps_of_zeros():
    """Have no direction: where the official code divides 0 by 0, the gate is that of 0."""
    attention = stage()
    x = torch.zeros(2, 16, 6, 5, dtype=torch.float64, requires_grad=True)
    (out, *_), _ = run(attention, [x])
    out.sum().backward()
    assert out.isfinite().all() and x.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in attention.parameters())


def test_restart_within_a_stage_makes_one_entry():
    attention, xs = stage(restart_block=2), maps()
    assert [block.restart is not None for block in attention.blocks] == [False, False, True, False]
    _, before = run(attention, xs[:2])
    _, after = attention(2, xs[2], xs[2], before)
    entry = attention.blocks[2].restart(before, attention.blocks[2].constants, xs[2])
    assert (after.weights > entry.weights).all() and entry.weights.max() < 3 * 2.72
    without = stage(restart_block=None)
    assert all(block.restart is None for block in without.blocks)


@pytest.mark.parametrize('size', [(33, 47), (40, 25)])
@pytest.mark.parametrize('strides', [(1, 2, 2, 2), (1, 2, 1, 1), (1, 3, 2, 1)])
def test_any_size_and_stride(size, strides):
    model = DLAResNet(18, base_channels=8, strides=strides, layer_attention=dict(type='KCLA'))
    plain = DLAResNet(18, base_channels=8, strides=strides, layer_attention=None)
    x = torch.randn(2, 3, *size)
    assert [out.shape for out in model(x)] == [out.shape for out in plain(x)]


def test_heads_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match=r'head_channels=1 makes 16 heads.*8 channels'):
        DLAResNet(18, base_channels=8, layer_attention=dict(type='KCLA', head_channels=1))
    with pytest.raises(ValueError, match='head_channels must divide the 8 channels'):
        DLAResNet(18, base_channels=8, layer_attention=dict(type='KCLA', head_channels=16))
