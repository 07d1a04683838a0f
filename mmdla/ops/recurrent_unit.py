r"""The recurrent unit of DLA within the vector operations, in plain PyTorch:

.. math::
    [i\ f\ g] &= W_2^y\,\mathrm{ReLU}(W_1^y y) + u, \quad
        c' = \sigma(f) \odot c + \sigma(i) \odot \tanh(g), \quad h' = \sigma(c') \\
    u' &= W_2^h\,\mathrm{ReLU}(W_1^h h'), \quad
        d_j = \text{the } h \text{ of one more step from } (c', u') \text{ with } y_j

for a descriptor ``y`` (B, C) and others ``y_j`` (B, n, C), whose ``d`` refreshes what they
describe.
``u`` is what the hidden state gives to the gates of the next steps.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Unit(NamedTuple):
    """What the unit starts from.

    Attributes:
        y (Tensor): Shape (B, C).
        others (Tensor): Shape (B, n, C).
        u (Tensor, optional): Of the step before, shape (B, 3C); ``None`` for the zero state.
        c (Tensor, optional): Of the step before, shape (B, C).
        weights (list[Tensor]): Weights and biases: from y, from h, two layers each.
        first (bool): Whether the context of the first sample refreshes all.
    """

    y: Tensor
    others: Tensor
    u: Tensor | None
    c: Tensor | None
    weights: list[Tensor]
    first: bool


def _step(gates: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """``i, f, g`` after their activations, ``c'`` and ``h'``, each (..., C)."""
    i, f, g = gates.chunk(3, -1)
    i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
    c = f * c + i * g
    return i, f, g, c, c.sigmoid()


def _step_backward(step, c, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the gates (..., 3C) and of ``c`` from that of ``c'``."""
    i, f, g, _, _ = step
    parts = grad * g * i * (1 - i), grad * c * f * (1 - f), grad * i * (1 - g * g)
    return torch.cat(parts, -1), grad * f


def run_unit(n: Unit) -> dict[str, Tensor]:
    """Return everything that the unit computes: ``now`` and ``refresh`` are those of a step."""
    w1y, b1y, w2y, b2y, w1h, b1h, w2h, b2h = n.weights
    inputs = torch.cat((n.y.unsqueeze(1), n.others), 1)  # (B, 1 + n, C)
    z1 = F.linear(inputs, w1y, b1y).relu()  # (B, 1 + n, C // r)
    gates = F.linear(z1, w2y, b2y)  # (B, 1 + n, 3C)
    u = F.linear(b1h.relu(), w2h, b2h) if n.u is None else n.u  # (B, 3C) or (3C,)
    c = torch.zeros_like(n.y) if n.c is None else n.c
    now = _step(gates[:, 0] + u, c)
    z2 = F.linear(now[4], w1h, b1h).relu()  # (B, C // r)
    u = F.linear(z2, w2h, b2h)  # (B, 3C)
    seen = (t[:1] if n.first else t for t in (u, now[3]))
    seen_u, seen_c = (t.unsqueeze(1) for t in seen)  # (B or 1, 1, ...)
    refresh = _step(gates[:, 1:] + seen_u, seen_c)
    return dict(inputs=inputs, z1=z1, now=now, z2=z2, u=u, seen_c=seen_c, refresh=refresh)


def unit_backward(n: Unit, run: dict[str, Tensor], dd: Tensor, dh, dc, du):
    """Return the gradients of y, others, u, c and the weights, the last ones in a list.

    Args:
        n (Unit): What it started from.
        run (dict): What :func:`run_unit` returned.
        dd (Tensor): Gradient of the ``h`` of the others, (B, n, C).
        dh, dc, du (Tensor, optional): Those of the next state.
    """
    w1y, _, w2y, _, w1h, b1h, w2h, _ = n.weights
    now, refresh, none = run['now'], run['refresh'], n.y.new_empty(0)
    c = torch.zeros_like(n.y) if n.c is None else n.c
    g2, back = _step_backward(refresh, run['seen_c'], dd * refresh[4] * (1 - refresh[4]))
    back, to_u = back.sum(1), g2.sum(1)  # (B, C), (B, 3C)
    if n.first:  # to the first sample alone
        rest = (0, 0, 0, len(n.y) - 1)
        back, to_u = F.pad(back.sum(0, True), rest), F.pad(to_u.sum(0, True), rest)
    dc = back if dc is None else dc + back  # (B, C)
    du = to_u if du is None else du + to_u  # (B, 3C)
    dz2 = (du @ w2h) * (run['z2'] > 0)  # (B, C // r)
    of_h = dz2 @ w1h if dh is None else dz2 @ w1h + dh
    dc = dc + of_h * now[4] * (1 - now[4])
    g1, of_c = _step_backward(now, c, dc)
    dw1h, db1h, dw2h, db2h = dz2.T @ now[4], dz2.sum(0), du.T @ run['z2'], du.sum(0)
    if n.u is None:
        du0 = g1.sum(0)  # (3C,)
        dw2h, db2h = dw2h + torch.outer(du0, b1h.relu()), db2h + du0
        db1h = db1h + (w2h.T @ du0) * (b1h > 0)
    gates = torch.cat((g1.unsqueeze(1), g2), 1)  # (B, 1 + n, 3C)
    dz1 = (gates @ w2y) * (run['z1'] > 0)  # (B, 1 + n, C // r)
    of_inputs = dz1 @ w1y  # (B, 1 + n, C)
    of_z1, of_gates, z1, inputs = (
        t.reshape(-1, t.shape[-1]) for t in (dz1, gates, run['z1'], run['inputs'])
    )
    dw1y, db1y, dw2y, db2y = of_z1.T @ inputs, of_z1.sum(0), of_gates.T @ z1, of_gates.sum(0)
    of_u, of_c = none if n.u is None else g1, none if n.c is None else of_c
    dweights = [dw1y, db1y, dw2y, db2y, dw1h, db1h, dw2h, db2h]
    return of_inputs[:, 0], of_inputs[:, 1:], of_u, of_c, dweights


def of_unit_weights(unit: bool, next_state: bool, zero_state: bool) -> list[bool]:
    """Which of the eight weights take part: those of the inputs, then those of the state.

    Args:
        unit (bool): Whether anything of the unit has a gradient.
        next_state (bool): Whether what the new state gives to the gates has one.
        zero_state (bool): Whether what the zero state gave to them has one.
    """
    return [*[unit] * 4, *[unit and (next_state or zero_state)] * 4]


def channel_conv(y: Tensor, weight: Tensor) -> Tensor:
    """Convolution over the channels of a descriptor (B, C), weight (1, 1, K)."""
    return F.conv1d(y.unsqueeze(1), weight, padding=weight.shape[-1] // 2).squeeze(1)


def channel_conv_backward(g: Tensor, y: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the descriptor and of the weight from that of the result, (B, C)."""
    taps, channels = weight.shape[-1], y.shape[1]
    padded = F.pad(y, (taps // 2, taps // 2))
    found = [(g * padded[:, t : t + channels]).sum() for t in range(taps)]
    return channel_conv(g, weight.flip(-1)), torch.stack(found).view_as(weight)
