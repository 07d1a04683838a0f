import pytest
import torch
from mmengine.registry import MODELS

from mmdla import DSU


def lstm_step(unit, y, h, c):
    """The released cell, gate by gate."""
    w1y, b1y, w2y, b2y = unit.from_y.parameters()
    w1h, b1h, w2h, b2h = unit.from_h.parameters()
    u = w2y @ (w1y @ y + b1y).clamp(min=0) + b2y + w2h @ (w1h @ h + b1h).clamp(min=0) + b2h
    n = unit.channels
    i, f, g = u[:n], u[n : 2 * n], u[2 * n : 3 * n]
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(c)
    if unit.output_gate:
        h = h * torch.sigmoid(u[3 * n :])
    return h, c


@pytest.mark.parametrize('output_gate', [False, True])
def test_released_form_by_hand(output_gate):
    torch.manual_seed(0)
    unit = DSU(8, reduction=2, output_gate=output_gate).double()
    y, h, c = torch.randn(3, 8, dtype=torch.float64)
    got = unit(y, (h, c))
    for a, b in zip(got, lstm_step(unit, y, h, c), strict=True):
        torch.testing.assert_close(a, b)


def test_shared_form_by_hand():
    torch.manual_seed(0)
    unit = DSU(6, reduction=2, form='shared').double()
    y, h, c = torch.randn(3, 6, dtype=torch.float64)
    w1, b1, w2, b2 = unit.from_cy.parameters()
    u = w2 @ (w1 @ torch.cat((c.sigmoid(), y)) + b1).clamp(min=0) + b2
    expected = u[6:12].sigmoid() * c + u[:6].sigmoid() * u[12:].tanh()
    torch.testing.assert_close(unit(y, (h, c))[1], expected)


@pytest.mark.parametrize(('channels', 'reduction'), [(64, 4), (256, 16), (256, 20)])
def test_parameters(channels, reduction):
    squeezed = channels // reduction
    released = 8 * channels * squeezed + 2 * squeezed + 6 * channels
    shared = 5 * channels * squeezed + squeezed + 3 * channels
    assert sum(p.numel() for p in DSU(channels, reduction).parameters()) == released
    assert sum(p.numel() for p in DSU(channels, reduction, 'shared').parameters()) == shared


@pytest.mark.parametrize('form', ['released', 'shared'])
def test_gradcheck_and_broadcast_state(form):
    torch.manual_seed(0)
    unit = DSU(4, reduction=2, form=form).double()
    y = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    h, c = (torch.randn(2, 1, 4, dtype=torch.float64, requires_grad=True) for _ in 'hc')
    assert torch.autograd.gradcheck(lambda *a: unit(a[0], a[1:]), (y, h, c))
    rows = torch.stack([unit(y[:, m], (h[:, 0], c[:, 0]))[0] for m in range(3)], dim=1)
    torch.testing.assert_close(unit(y, (h, c))[0], rows)


def test_from_the_registry():
    assert isinstance(MODELS.build(dict(type='mmdla.DSU', channels=32)), DSU)


@pytest.mark.parametrize(
    ('error', 'words', 'args'),
    [
        (ValueError, 'reduction.*-4', dict(channels=8, reduction=-4)),
        (ValueError, 'reduction.*1..8.*got 9', dict(channels=8, reduction=9)),
        (TypeError, 'reduction.*2.0', dict(channels=8, reduction=2.0)),
        (ValueError, 'form.*released.*shared.*other', dict(channels=8, form='other')),
        (TypeError, 'output_gate', dict(channels=8, output_gate=1)),
    ],
)
def test_bad_arguments(error, words, args):
    with pytest.raises(error, match=words):
        DSU(**args)


def test_wrong_channels():
    with pytest.raises(ValueError, match=r'32 channels.*\(2, 16\)'):
        DSU(32)(torch.rand(2, 16))
