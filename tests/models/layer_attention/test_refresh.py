"""What DLA-B's refresh leaves of the old values, as released and as ``refresh='residual'``."""

import pytest
import torch
from attention_equations import unit

from mmdla import DLAResNet_CIFAR
from mmdla.models.layer_attention import DLABase, MRLABase

SIZES = dict(channels=16, num_blocks=12, head_channels=8)


def run(attention, maps):
    """Output of every block for given maps (B, C, H, W), and the last state."""
    state, outs = None, []
    for index, x in enumerate(maps):
        out, state = attention.attend(index, x, x, state)
        outs.append(out)
    return outs, state


def maps(requires_grad=False):
    torch.manual_seed(1)
    return [
        torch.rand(2, 16, 5, 6, dtype=torch.float64, requires_grad=requires_grad) for _ in range(12)
    ]


def make(kind, **kwargs):
    torch.manual_seed(0)
    return kind(**SIZES, **kwargs).double().eval()


@pytest.mark.parametrize(('refresh', 'gain'), [('released', 1), ('residual', 2)])
@pytest.mark.parametrize('ops', ['reference', 'fast'])
def test_products_by_hand(refresh, gain, ops):
    attention = make(DLABase, reduction=2, refresh=refresh, ops=ops)
    p = dict(attention.named_parameters())
    xs = maps()
    _, state = run(attention, xs)
    h = c = torch.zeros(2, 16, dtype=torch.float64)
    values, keys, products = [], [], []
    for x, heads in zip(xs, attention.blocks, strict=True):
        h, c, _ = unit(p, x.mean((2, 3)), h, c)
        for m, value in enumerate(values):
            fresh = gain * unit(p, value.mean((2, 3)), h, c)[0]
            values[m], products[m] = value * fresh[..., None, None], products[m] * fresh
            keys[m] = keys[m] * gain * unit(p, keys[m], h, c)[0]
        values.append(heads.value(x))
        keys.append(heads.key(x.mean((2, 3))[:, None])[:, 0])
        products.append(torch.ones_like(h))
    torch.testing.assert_close(state.gates, torch.stack(products, 1))
    torch.testing.assert_close(state.keys, torch.stack(keys, 1))
    seen = [
        g[..., None, None] * v for g, v in zip(state.gates.unbind(1), state.values, strict=True)
    ]
    torch.testing.assert_close(torch.stack(seen), torch.stack(values))


def test_residual_refresh_by_a_unit_that_does_nothing_is_mrla():
    attention, static = make(DLABase, reduction=2, refresh='residual'), make(MRLABase)
    for p in attention.dsu.parameters():
        torch.nn.init.zeros_(p)
    missing = static.load_state_dict(attention.state_dict(), strict=False)
    assert not missing.missing_keys
    for a, b in zip(run(attention, maps())[0], run(static, maps())[0], strict=True):
        torch.testing.assert_close(a, b)


def test_what_is_left_before_anything_is_learned():
    left = {}
    for refresh in ('released', 'residual'):
        _, state = run(make(DLABase, reduction=2, refresh=refresh), maps())
        left[refresh] = state.gates[:, 0].log().mean().exp().item()
    assert left['released'] < 0.002  # halved eleven times
    assert 0.3 < left['residual'] < 3


def test_gradients_reach_the_first_value():
    norms = {}
    for refresh in ('released', 'residual'):
        attention, xs = make(DLABase, reduction=2, refresh=refresh), maps()
        xs[0].requires_grad_()
        outs, _ = run(attention, xs)
        outs[-1].square().sum().backward()
        assert xs[0].grad.isfinite().all()
        norms[refresh] = xs[0].grad.norm()
    assert norms['residual'] > 100 * norms['released'] > 0


def test_both_have_the_same_weights():
    """A checkpoint fits either; what it computes is another function."""
    attention = dict(type='DLABase', reduction=4)
    released = DLAResNet_CIFAR(29, layer_attention=attention)
    residual = DLAResNet_CIFAR(29, layer_attention=dict(attention, refresh='residual'))
    residual.load_state_dict(released.state_dict())
    x = torch.rand(1, 3, 32, 32)
    assert not torch.allclose(residual.eval()(x)[-1], released.eval()(x)[-1])


def test_unknown_refresh():
    with pytest.raises(ValueError, match=r'refresh.*released.*residual.*other'):
        DLABase(**SIZES, refresh='other')
