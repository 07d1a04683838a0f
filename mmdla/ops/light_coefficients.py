r"""The vector part of a block with light layer attention, in one operation.

From the poolings :math:`y = \mathrm{GAP}(x)`, :math:`y_s = \mathrm{GAP}(s)` and the state of the
recurrent unit to the kernels of :mod:`mmdla.ops.dual_dwconv`, with the delta :math:`\delta` in the
middle of a 3x3 kernel:

.. math::
    a &= \sigma(q \cdot k / \sqrt{d}) \text{ per head}, \quad
        q, k = \mathrm{Conv1d}(y) \text{ over the channels} \\
    [i\ f\ g] &= W_2^y\,\mathrm{ReLU}(W_1^y y) + u, \quad
        c' = \sigma(f) \odot c + \sigma(i) \odot \tanh(g), \quad h' = \sigma(c') \\
    u' &= W_2^h\,\mathrm{ReLU}(W_1^h h'), \quad
        d = \text{the } h \text{ of one more step from } (c', u') \text{ with } y_s \\
    k_x &= a \odot V, \quad k_s = \lambda \odot (E + d\,\delta)

``u`` is what the hidden state gives to the gates of the next steps. With a norm of running
statistics behind them, ``kx = keep * scale * kx + δ``, ``ks = keep * scale * ks`` and
``bias = keep * shift``. Without a recurrent unit (MRLA-L), d is 1 and E is 0.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .library import define, is_differentiated


class Inputs(NamedTuple):
    """Arguments of the operation; what there is none of is ``None`` or empty.

    Attributes:
        y (Tensor): ``GAP(x)``, shape (B, C).
        y_shortcut (Tensor, optional): ``GAP(s)``, shape (B, C).
        u (Tensor, optional): Of the step before, shape (B, 3C); ``None`` for the zero state.
        c (Tensor, optional): Of the step before, shape (B, C).
        query, key (Tensor): Weights of the channel convolutions, shape (1, 1, K).
        value (Tensor): Weight of ``V``, shape (C, 1, 3, 3).
        lambda_ (Tensor): Shape (C, 1, 1).
        extract (Tensor, optional): Weight of ``E``, shape (C, 1, 3, 3).
        dsu (list[Tensor]): Weights and biases of the unit: from y, from h, two layers each.
        norm (list[Tensor]): Weight, bias, running mean and variance, each (C,).
        eps (float): Of the norm.
        keep (Tensor, optional): Drop path's factors, shape (B, 1); ``None`` for 1.
        head_channels (int): Channels ``d`` of a head.
        first (bool): Whether the context of the first sample refreshes all.
    """

    y: Tensor
    y_shortcut: Tensor | None
    u: Tensor | None
    c: Tensor | None
    query: Tensor
    key: Tensor
    value: Tensor
    lambda_: Tensor
    extract: Tensor | None
    dsu: list[Tensor]
    norm: list[Tensor]
    eps: float
    keep: Tensor | None
    head_channels: int
    first: bool


def _inputs(*args) -> Inputs:
    """The arguments, all tensors in the dtype of ``y``: parameters may be in half precision."""
    n = Inputs(*args)

    def cast(tree):
        if isinstance(tree, list):
            return [cast(v) for v in tree]
        return tree.to(n.y.dtype) if isinstance(tree, Tensor) else tree

    return Inputs(*map(cast, n))


ARGUMENTS = (
    'Tensor y, Tensor? y_shortcut, Tensor? u, Tensor? c, Tensor query, Tensor key, Tensor value,'
    ' Tensor lambda_, Tensor? extract, Tensor[] dsu, Tensor[] norm, float eps, Tensor? keep,'
    ' int head_channels, bool first'
)


def _step(gates: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    """``i, f, g`` after their activations, ``c'`` and ``h'``, each (B, C)."""
    i, f, g = gates.chunk(3, -1)
    i, f, g = i.sigmoid(), f.sigmoid(), g.tanh()
    c = f * c + i * g
    return i, f, g, c, c.sigmoid()


def _unit(n: Inputs) -> dict[str, Tensor]:
    """Everything that the recurrent unit computes."""
    w1y, b1y, w2y, b2y, w1h, b1h, w2h, b2h = n.dsu
    z1 = F.linear(torch.stack((n.y, n.y_shortcut)), w1y, b1y).relu()  # (2, B, C // r)
    of_y, of_shortcut = F.linear(z1, w2y, b2y).unbind(0)  # 2 x (B, 3C)
    u = F.linear(b1h.relu(), w2h, b2h) if n.u is None else n.u  # (B, 3C) or (3C,)
    c = torch.zeros_like(n.y) if n.c is None else n.c
    now = _step(of_y + u, c)
    z2 = F.linear(now[4], w1h, b1h).relu()  # (B, C // r)
    u = F.linear(z2, w2h, b2h)  # (B, 3C)
    seen = (u[:1], now[3][:1]) if n.first else (u, now[3])
    return dict(z1=z1, now=now, z2=z2, u=u, refresh=_step(of_shortcut + seen[0], seen[1]))


def _channel_conv(y: Tensor, weight: Tensor) -> Tensor:
    return F.conv1d(y.unsqueeze(1), weight, padding=weight.shape[-1] // 2).squeeze(1)


def _gate(n: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """``a`` of every head, (B, heads), and q, k (B, heads, width)."""
    q, k = (_channel_conv(n.y, w).reshape(len(n.y), -1, n.head_channels) for w in (n.query, n.key))
    return ((q * k).sum(-1) / math.sqrt(n.head_channels)).sigmoid(), q, k


def _centre(like: Tensor) -> Tensor:
    return (torch.arange(9, device=like.device) == 4).to(like.dtype)  # (9,)


def _affine(n: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Scale and shift (C,) of the norm and drop path's factors (B, 1)."""
    weight, bias, mean, var = n.norm
    scale = weight * (var + n.eps).rsqrt()
    keep = n.y.new_ones(len(n.y), 1) if n.keep is None else n.keep
    return scale, bias - scale * mean, keep


def _reference(*args) -> tuple[Tensor, ...]:
    n = _inputs(*args)
    none, *state = (n.y.new_empty(0) for _ in range(4))  # results share no memory
    delta = _centre(n.y)  # (9,)
    a = _gate(n)[0].repeat_interleave(n.head_channels, -1)  # (B, C)
    kx = a.unsqueeze(-1) * n.value.view(-1, 9)  # (B, C, 9)
    if n.extract is None:
        ks = (n.lambda_.view(-1, 1) * delta).expand(kx.shape)  # (B, C, 9)
    else:
        unit = _unit(n)
        state = unit['now'][4], unit['now'][3], unit['u']
        refreshed = n.extract.view(-1, 9) + unit['refresh'][4].unsqueeze(-1) * delta
        ks = n.lambda_.view(-1, 1) * refreshed  # (B, C, 9)
    if not n.norm:
        return kx, ks.contiguous(), none, *state
    scale, shift, keep = _affine(n)
    by = (keep * scale).unsqueeze(-1)  # (B, C, 1)
    return by * kx + delta, by * ks, keep * shift, *state


def _fake(*args) -> tuple[Tensor, ...]:
    n = Inputs(*args)
    batch, channels = n.y.shape
    kernels = (n.y.new_empty(batch, channels, 9) for _ in range(2))
    bias = n.y.new_empty(n.y.shape if n.norm else (0,))
    sizes = [(0,)] * 3 if n.extract is None else [n.y.shape, n.y.shape, (batch, 3 * channels)]
    return *kernels, bias, *(n.y.new_empty(size) for size in sizes)


def _setup_context(ctx, inputs, output) -> None:
    n = Inputs(*inputs)
    ctx.rest = n.eps, n.head_channels, n.first
    ctx.sizes = len(n.dsu), len(n.norm)
    ctx.save_for_backward(*n[:9], n.keep, *n.dsu, *n.norm)
    ctx.set_materialize_grads(False)


def _backward(ctx, *gradients):
    saved, (units, norms), (eps, head_channels, first) = ctx.saved_tensors, ctx.sizes, ctx.rest
    dsu, norm = list(saved[10 : 10 + units]), list(saved[10 + units :])
    args = (*saved[:9], dsu, norm, eps, saved[9], head_channels, first)
    if is_differentiated(*gradients):
        found = _gradients(*gradients, *args)
    else:
        found = light_coefficients_backward(*gradients, *args)
    found = [None if g.numel() == 0 else g for g in found]
    of_norm = [*found[17:], None, None][:norms]
    return *found[:9], found[9 : 9 + units], of_norm, None, None, None, None


def _step_backward(step, c, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the gates (B, 3C) and of ``c`` from that of ``c'``."""
    i, f, g, _, _ = step
    parts = grad * g * i * (1 - i), grad * c * f * (1 - f), grad * i * (1 - g * g)
    return torch.cat(parts, -1), grad * f


def _gradients(dkx, dks, dbias, dh, dc, du, *args) -> list[Tensor]:
    n = _inputs(*args)
    none = n.y.new_empty(0)
    zero = n.y.new_zeros(*n.y.shape, 9)
    dkx, dks = (zero if g is None else g for g in (dkx, dks))
    delta, value, lambda_ = _centre(n.y), n.value.view(-1, 9), n.lambda_.view(-1, 1)
    heads, q, k = _gate(n)
    a = heads.repeat_interleave(n.head_channels, -1).unsqueeze(-1)  # (B, C, 1)
    unit = None if n.extract is None else _unit(n)
    refreshed = delta.expand(1, 1, 9)
    if unit is not None:
        refreshed = n.extract.view(-1, 9) + unit['refresh'][4].unsqueeze(-1) * delta  # (B, C, 9)
    dnorm = [none, none]
    if n.norm:
        scale, _, keep = _affine(n)
        with_kernels = (dkx * a * value + dks * lambda_ * refreshed).sum(-1)  # (B, C)
        dshift = n.y.new_zeros(n.y.shape[1]) if dbias is None else (keep * dbias).sum(0)
        dscale = (keep * with_kernels).sum(0) - n.norm[2] * dshift  # (C,)
        dnorm = [dscale * (n.norm[3] + n.eps).rsqrt(), dshift]
        by = (keep * scale).unsqueeze(-1)  # (B, C, 1)
        dkx, dks = by * dkx, by * dks
    dvalue = (a * dkx).sum(0).view_as(n.value)
    dlambda = (dks * refreshed).sum((0, 2)).view_as(n.lambda_)
    da = (dkx * value).sum(-1).reshape(len(n.y), -1, n.head_channels).sum(-1)  # (B, heads)
    of_heads = da * heads * (1 - heads) / math.sqrt(n.head_channels)
    dq, dk = ((of_heads.unsqueeze(-1) * v).reshape(n.y.shape) for v in (k, q))  # 2 x (B, C)
    dy = _channel_conv(dq, n.query.flip(-1)) + _channel_conv(dk, n.key.flip(-1))
    dweights = [_channel_correlation(g, n.y, w) for g, w in ((dq, n.query), (dk, n.key))]
    if unit is None:
        return [dy, none, none, none, *dweights, dvalue, dlambda, none, *[none] * 8, *dnorm]
    dextract = (lambda_ * dks).sum(0).view_as(n.extract)
    dd = lambda_.view(-1) * dks[..., 4]  # (B, C)
    of_y, of_shortcut, of_u, of_c, dunit = _unit_backward(n, unit, dd, dh, dc, du)
    return [
        dy + of_y,
        of_shortcut,
        of_u,
        of_c,
        *dweights,
        dvalue,
        dlambda,
        dextract,
        *dunit,
        *dnorm,
    ]


def _unit_backward(n: Inputs, unit, dd, dh, dc, du):
    """Gradients of y, y_shortcut, u, c and the weights of the unit."""
    w1y, _, w2y, _, w1h, b1h, w2h, _ = n.dsu
    now, refresh, none = unit['now'], unit['refresh'], n.y.new_empty(0)
    c = torch.zeros_like(n.y) if n.c is None else n.c
    seen = now[3][:1] if n.first else now[3]
    g2, back = _step_backward(refresh, seen, dd * refresh[4] * (1 - refresh[4]))
    to_u = g2
    if n.first:  # to the first sample alone
        rest = (0, 0, 0, len(n.y) - 1)
        back, to_u = F.pad(back.sum(0, True), rest), F.pad(g2.sum(0, True), rest)
    dc = back if dc is None else dc + back  # (B, C)
    du = to_u if du is None else du + to_u  # (B, 3C)
    dz2 = (du @ w2h) * (unit['z2'] > 0)  # (B, C // r)
    of_h = dz2 @ w1h if dh is None else dz2 @ w1h + dh
    dc = dc + of_h * now[4] * (1 - now[4])
    g1, of_c = _step_backward(now, c, dc)
    dw1h, db1h, dw2h, db2h = dz2.T @ now[4], dz2.sum(0), du.T @ unit['z2'], du.sum(0)
    if n.u is None:
        du0 = g1.sum(0)  # (3C,)
        dw2h, db2h = dw2h + torch.outer(du0, b1h.relu()), db2h + du0
        db1h = db1h + (w2h.T @ du0) * (b1h > 0)
    gates = torch.stack((g1, g2))  # (2, B, 3C)
    dz1 = (gates @ w2y) * (unit['z1'] > 0)  # (2, B, C // r)
    of_y, of_shortcut = (dz1 @ w1y).unbind(0)
    rows, inputs = dz1.reshape(-1, dz1.shape[-1]), torch.cat((n.y, n.y_shortcut))
    dw1y, db1y = rows.T @ inputs, rows.sum(0)
    columns, z1 = gates.reshape(-1, gates.shape[-1]).T, unit['z1'].reshape(-1, dz1.shape[-1])
    dw2y, db2y = columns @ z1, gates.sum((0, 1))
    of_u, of_c = none if n.u is None else g1, none if n.c is None else of_c
    return of_y, of_shortcut, of_u, of_c, (dw1y, db1y, dw2y, db2y, dw1h, db1h, dw2h, db2h)


def _channel_correlation(g: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Gradient of a channel convolution's weight, from that of its result, both (B, C)."""
    taps, channels = weight.shape[-1], y.shape[1]
    padded = F.pad(y, (taps // 2, taps // 2))
    found = [(g * padded[:, t : t + channels]).sum() for t in range(taps)]
    return torch.stack(found).view_as(weight)


def _backward_reference(*args) -> list[Tensor]:
    return [g.clone(memory_format=torch.contiguous_format) for g in _gradients(*args)]


def _backward_fake(dkx, dks, dbias, dh, dc, du, *args) -> list[Tensor]:
    n = Inputs(*args)
    of_unit = (None,) * 3 if n.extract is None else n[1:4]  # as many as there really are
    inputs = [n.y, *of_unit, *n[4:9], *(n.dsu or [None] * 8), *(n.norm[:2] or [None] * 2)]
    return [n.y.new_empty(0) if v is None else torch.empty_like(v) for v in inputs]


light_coefficients_backward = define(
    'light_coefficients_backward(Tensor? dkx, Tensor? dks, Tensor? dbias, Tensor? dh, Tensor? dc,'
    f' Tensor? du, {ARGUMENTS}) -> Tensor[]',
    reference=_backward_reference,
    kernel=lambda found, *args: found.light_coefficients_backward(*args),
    fake=_backward_fake,
)
light_coefficients = define(
    f'light_coefficients({ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    reference=_reference,
    kernel=lambda found, *args: found.light_coefficients(*args),
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)
