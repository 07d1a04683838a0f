r"""The vector part of a block with light layer attention, in one operation.

From the poolings :math:`y = \mathrm{GAP}(x)`, :math:`y_s = \mathrm{GAP}(s)` and the state of the
recurrent unit to the kernels of :mod:`mmdla.ops.dual_dwconv`, with the delta :math:`\delta` in the
middle of a 3x3 kernel:

.. math::
    a &= \sigma(q \cdot k / \sqrt{d}) \text{ per head}, \quad
        q, k = \mathrm{Conv1d}(y) \text{ over the channels} \\
    h', c', u' &= \text{the unit's next state with } y, \quad
        d = \text{the } h \text{ of one more step from there with } y_s \\
    k_x &= a \odot V, \quad k_s = \lambda \odot (E + d\,\delta)

with the unit of :mod:`mmdla.ops.recurrent_unit`. With a norm of running
statistics behind them, ``kx = keep * scale * kx + δ``, ``ks = keep * scale * ks`` and
``bias = keep * shift``. Without a recurrent unit (MRLA-L), d is 1 and E is 0.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .library import define, is_differentiated, only_reached
from .recurrent_unit import (
    Unit,
    channel_conv,
    channel_conv_backward,
    of_unit_weights,
    run_unit,
    unit_backward,
)


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


def _unit_of(n: Inputs) -> Unit:
    return Unit(n.y, n.y_shortcut.unsqueeze(1), n.u, n.c, n.dsu, n.first)


def _gate(n: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """``a`` of every head, (B, heads), and q, k (B, heads, width)."""
    q, k = (channel_conv(n.y, w).reshape(len(n.y), -1, n.head_channels) for w in (n.query, n.key))
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
        unit = run_unit(_unit_of(n))
        state = unit['now'][4], unit['now'][3], unit['u']
        refreshed = n.extract.view(-1, 9) + unit['refresh'][4].mT * delta
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


def _reached(n: Inputs, gradients: Sequence[Tensor | None]) -> list[bool]:
    """Which inputs take part in results that have a gradient: y to extract, unit, scale, shift."""
    kx, ks, bias, h, c, u = (g is not None for g in gradients)
    state = h or c or u
    unit = n.extract is not None and (ks or state)
    return [
        *(kx or unit, unit, unit, unit),  # the unit takes both descriptors together
        *(kx, kx, kx, ks, ks),
        *of_unit_weights(unit, ks or u, state and n.u is None),
        *(kx or ks or bias, bias),
    ]


def _backward(ctx, *gradients):
    saved, (units, norms), (eps, head_channels, first) = ctx.saved_tensors, ctx.sizes, ctx.rest
    dsu, norm = list(saved[10 : 10 + units]), list(saved[10 + units :])
    args = (*saved[:9], dsu, norm, eps, saved[9], head_channels, first)
    if is_differentiated(*gradients):
        found = _gradients(*gradients, *args)
    else:
        found = light_coefficients_backward(*gradients, *args)
    found = only_reached(found, _reached(Inputs(*args), gradients))
    of_norm = [*found[17:], None, None][:norms]
    return *found[:9], found[9 : 9 + units], of_norm, None, None, None, None


def _gradients(dkx, dks, dbias, dh, dc, du, *args) -> list[Tensor]:
    n = _inputs(*args)
    none = n.y.new_empty(0)
    zero = n.y.new_zeros(*n.y.shape, 9)
    dkx, dks = (zero if g is None else g for g in (dkx, dks))
    delta, value, lambda_ = _centre(n.y), n.value.view(-1, 9), n.lambda_.view(-1, 1)
    heads, q, k = _gate(n)
    a = heads.repeat_interleave(n.head_channels, -1).unsqueeze(-1)  # (B, C, 1)
    unit = None if n.extract is None else run_unit(_unit_of(n))
    refreshed = delta.expand(1, 1, 9)
    if unit is not None:
        refreshed = n.extract.view(-1, 9) + unit['refresh'][4].mT * delta  # (B, C, 9)
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
    of_q, dquery = channel_conv_backward(dq, n.y, n.query)
    of_k, dkey = channel_conv_backward(dk, n.y, n.key)
    dy, dweights = of_q + of_k, (dquery, dkey)
    if unit is None:
        return [dy, none, none, none, *dweights, dvalue, dlambda, none, *[none] * 8, *dnorm]
    dextract = (lambda_ * dks).sum(0).view_as(n.extract)
    dd = lambda_.view(-1) * dks[..., 4]  # (B, C)
    dd = dd.unsqueeze(1)  # (B, 1, C)
    of_y, of_shortcut, of_u, of_c, dunit = unit_backward(_unit_of(n), unit, dd, dh, dc, du)
    return [
        dy + of_y,
        of_shortcut.squeeze(1),
        of_u,
        of_c,
        *dweights,
        dvalue,
        dlambda,
        dextract,
        *dunit,
        *dnorm,
    ]


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
