r"""The vector part of a block with base layer attention, in one operation.

From the poolings :math:`y = \mathrm{GAP}(x)`, :math:`p = \mathrm{GAP}(V(x))`, the keys :math:`k_m`,
gates :math:`e_m` and poolings :math:`p_m` of the blocks before, and the state of the recurrent
unit, to the weights of the sum of all value maps:

.. math::
    q, k &= \mathrm{Conv1d}(y) \text{ over the channels} \\
    k_m &\leftarrow \gamma\, d(k_m) \odot k_m, \quad
        e_m \leftarrow \gamma\, d(p_m) \odot e_m, \quad p_m \leftarrow \gamma\, d(p_m) \odot p_m \\
    w_m &= \mathrm{softmax}_m(q \cdot k_m / \sqrt{d}) \odot e_m
        \text{ over all blocks, per head, with } k, 1, p \text{ of this one}

where the unit of :mod:`mmdla.ops.recurrent_unit` steps with ``y``, and ``d`` is its ``h`` of one
more step from there. Without a unit (MRLA-B) there is no refresh.
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
        pooling (Tensor): ``GAP(V(x))``, shape (B, C).
        keys, gates, pooled (Tensor): Of the blocks before, shape (B, m, C).
        u (Tensor, optional): Of the step before, shape (B, 3C); ``None`` for the zero state.
        c (Tensor, optional): Of the step before, shape (B, C).
        query, key (Tensor): Weights of the channel convolutions, shape (1, 1, K).
        dsu (list[Tensor]): Weights and biases of the unit: from y, from h, two layers each.
        head_channels (int): Channels ``d`` of a head.
        gain (float): Factor of the unit's ``h`` in the refresh.
        first (bool): Whether the context of the first sample refreshes all.
    """

    y: Tensor
    pooling: Tensor
    keys: Tensor
    gates: Tensor
    pooled: Tensor
    u: Tensor | None
    c: Tensor | None
    query: Tensor
    key: Tensor
    dsu: list[Tensor]
    head_channels: int
    gain: float
    first: bool


ARGUMENTS = (
    'Tensor y, Tensor pooling, Tensor keys, Tensor gates, Tensor pooled, Tensor? u, Tensor? c,'
    ' Tensor query, Tensor key, Tensor[] dsu, int head_channels, float gain, bool first'
)


def _inputs(*args) -> Inputs:
    """The arguments, all tensors in the dtype of ``y``: parameters may be in half precision."""
    n = Inputs(*args)
    tensors = (None if t is None else t.to(n.y.dtype) for t in n[:9])
    return Inputs(*tensors, [w.to(n.y.dtype) for w in n.dsu], *n[10:])


def _unit_of(n: Inputs) -> Unit:
    return Unit(n.y, torch.cat((n.keys, n.pooled), 1), n.u, n.c, n.dsu, n.first)


def _forward(n: Inputs) -> dict[str, Tensor]:
    """Everything that the forward pass computes."""
    unit = run_unit(_unit_of(n)) if n.dsu else None
    of_keys = of_values = torch.ones_like(n.keys)  # (B, m, C)
    if unit is not None:
        of_keys, of_values = (n.gain * unit['refresh'][4]).chunk(2, 1)  # 2 x (B, m, C)
    q, k = channel_conv(n.y, n.query), channel_conv(n.y, n.key)  # 2 x (B, C)
    new = k, torch.ones_like(k), n.pooling
    old = n.keys * of_keys, n.gates * of_values, n.pooled * of_values
    keys, gates, pooled = (torch.cat((a, b.unsqueeze(1)), 1) for a, b in zip(old, new, strict=True))
    products = _heads(n, q.unsqueeze(1) * keys).sum(-1)  # (B, m + 1, heads)
    shares = (products / math.sqrt(n.head_channels)).softmax(1)
    return dict(
        unit=unit,
        of_keys=of_keys,
        of_values=of_values,
        q=q,
        keys=keys,
        gates=gates,
        pooled=pooled,
        shares=shares.repeat_interleave(n.head_channels, -1),  # (B, m + 1, C)
    )


def _heads(n: Inputs, t: Tensor) -> Tensor:
    """(..., C) to (..., heads, width)."""
    return t.reshape(*t.shape[:-1], -1, n.head_channels)


def _reference(*args) -> tuple[Tensor, ...]:
    n = _inputs(*args)
    f = _forward(n)
    state = [n.y.new_empty(0) for _ in range(3)]  # results share no memory
    if f['unit'] is not None:
        state = f['unit']['now'][4], f['unit']['now'][3], f['unit']['u']
    return f['shares'] * f['gates'], f['keys'], f['gates'], f['pooled'], *state


def _fake(*args) -> tuple[Tensor, ...]:
    n = Inputs(*args)
    batch, blocks, channels = n.keys.shape
    of_blocks = (n.y.new_empty(batch, blocks + 1, channels) for _ in range(4))
    sizes = [n.y.shape, n.y.shape, (batch, 3 * channels)] if n.dsu else [(0,)] * 3
    return *of_blocks, *(n.y.new_empty(size) for size in sizes)


def _setup_context(ctx, inputs, output) -> None:
    n = Inputs(*inputs)
    ctx.rest = n.head_channels, n.gain, n.first
    ctx.save_for_backward(*n[:9], *n.dsu)
    ctx.set_materialize_grads(False)


def _reached(n: Inputs, gradients: Sequence[Tensor | None]) -> list[bool]:
    """Which inputs take part in results that have a gradient: y to key, weights of the unit."""
    weights, keys, gates, pooled, h, c, u = (g is not None for g in gradients)
    state = h or c or u
    refresh = n.keys.shape[1] > 0 and (weights or keys or gates or pooled)
    unit = bool(n.dsu) and (state or refresh)  # takes all descriptors together
    return [
        *(weights or keys or unit, pooled),
        *(weights or keys or unit, weights or gates, pooled or unit),
        *(unit, unit, weights, weights or keys),
        *of_unit_weights(unit, refresh or u, state and n.u is None),
    ]


def _backward(ctx, *gradients):
    saved = ctx.saved_tensors  # once: a checkpoint computes them anew
    args = *saved[:9], list(saved[9:]), *ctx.rest
    rule = _gradients if is_differentiated(*gradients) else base_coefficients_backward
    found = rule(*gradients, *args)
    found = only_reached(found, _reached(Inputs(*args), gradients))
    return *found[:9], found[9 : len(saved)], None, None, None


def _gradients(dweights, dkeys, dgates, dpooled, dh, dc, du, *args) -> list[Tensor]:
    n = _inputs(*args)
    none, m = n.y.new_empty(0), n.keys.shape[1]
    f = _forward(n)
    q, keys, shares = f['q'], f['keys'], f['shares']
    dweights, dkeys, dgates, dpooled = (
        torch.zeros_like(keys) if g is None else g for g in (dweights, dkeys, dgates, dpooled)
    )  # 4 x (B, m + 1, C)
    dgates = dgates + dweights * shares
    of_shares = _heads(n, dweights * f['gates']).sum(-1)  # (B, m + 1, heads)
    of_shares = of_shares.repeat_interleave(n.head_channels, -1)  # (B, m + 1, C)
    mean = (shares * of_shares).sum(1, True)  # (B, 1, C)
    of_products = shares * (of_shares - mean) / math.sqrt(n.head_channels)  # (B, m + 1, C)
    dkeys = dkeys + of_products * q.unsqueeze(1)
    of_q, dquery = channel_conv_backward((of_products * keys).sum(1), n.y, n.query)
    of_k, dkey = channel_conv_backward(dkeys[:, m], n.y, n.key)
    dy, dpooling = of_q + of_k, dpooled[:, m]  # 2 x (B, C)
    dkeys, dgates, dpooled = (g[:, :m] for g in (dkeys, dgates, dpooled))  # 3 x (B, m, C)
    old = [dkeys * f['of_keys'], dgates * f['of_values'], dpooled * f['of_values']]
    if f['unit'] is None:
        return [dy, dpooling, *old, none, none, dquery, dkey, *[none] * 8]
    dd = torch.cat((dkeys * n.keys, dgates * n.gates + dpooled * n.pooled), 1)  # (B, 2m, C)
    of_y, of_others, of_u, of_c, dunit = unit_backward(
        _unit_of(n), f['unit'], n.gain * dd, dh, dc, du
    )
    for_keys, for_pooled = of_others.chunk(2, 1) if m else (of_others, of_others)
    old = [old[0] + for_keys, old[1], old[2] + for_pooled]
    return [dy + of_y, dpooling, *old, of_u, of_c, dquery, dkey, *dunit]


def _backward_reference(*args) -> list[Tensor]:
    return [g.clone(memory_format=torch.contiguous_format) for g in _gradients(*args)]


def _backward_fake(dweights, dkeys, dgates, dpooled, dh, dc, du, *args) -> list[Tensor]:
    n = Inputs(*args)
    of_unit = (n.u, n.c) if n.dsu else (None, None)  # as many as there really are
    inputs = [*n[:5], *of_unit, n.query, n.key, *(n.dsu or [None] * 8)]
    return [n.y.new_empty(0 if v is None else v.shape) for v in inputs]


base_coefficients_backward = define(
    'base_coefficients_backward(Tensor? dweights, Tensor? dkeys, Tensor? dgates, Tensor? dpooled,'
    f' Tensor? dh, Tensor? dc, Tensor? du, {ARGUMENTS}) -> Tensor[]',
    reference=_backward_reference,
    kernel=lambda found, *args: found.base_coefficients_backward(*args),
    fake=_backward_fake,
)
base_coefficients = define(
    f'base_coefficients({ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)',
    reference=_reference,
    kernel=lambda found, *args: found.base_coefficients(*args),
    fake=_fake,
    setup_context=_setup_context,
    backward=_backward,
)
