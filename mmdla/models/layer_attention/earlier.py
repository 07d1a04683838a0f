"""What base layer attention keeps of the blocks before."""

from typing import NamedTuple

import torch
from torch import Tensor

from ..dsu import State as Context


class Earlier(NamedTuple):
    """Keys and values of the blocks so far, ``m`` of them.

    Attributes:
        keys (Tensor): ``k_m``, shape (B, m, C).
        gates (Tensor): What the values have been multiplied with, shape (B, m, C).
        pooled (Tensor): ``GAP(v_m)`` with that, shape (B, m, C).
        values (tuple[Tensor]): The maps ``v_m`` before that, m x (B, C, H, W).
        tokens (list[Tensor], optional): Those of the sums to come (:mod:`mmdla.ops.carried`);
            ``None`` where no fused operation is to come.
        context (tuple[Tensor, ...], optional): State of the DSU, as it takes it.
    """

    keys: Tensor
    gates: Tensor
    pooled: Tensor
    values: tuple[Tensor, ...]
    tokens: list[Tensor] | None = None
    context: Context | None = None

    def append(
        self, key: Tensor, value: Tensor, pooled: Tensor, tokens: list[Tensor] | None
    ) -> 'Earlier':
        """Add a block: ``k_l`` (B, C), ``v_l`` (B, C, H, W), ``GAP(v_l)`` (B, C) and the tokens."""
        keys = torch.cat((self.keys, key.unsqueeze(1)), 1)  # (B, m, C)
        gates = torch.cat((self.gates, torch.ones_like(key).unsqueeze(1)), 1)  # (B, m, C)
        pools = torch.cat((self.pooled, pooled.unsqueeze(1)), 1)  # (B, m, C)
        return Earlier(keys, gates, pools, (*self.values, value), tokens, self.context)


def none_before(y: Tensor, context: Context | None = None) -> Earlier:
    """Return the state before the first block of a stage, for descriptors like ``y`` (B, C)."""
    nothing = y.new_empty(y.shape[0], 0, y.shape[1])
    return Earlier(nothing, nothing, nothing, (), None, context)


def without(tokens: list[Tensor] | None, position: int) -> list[Tensor] | None:
    """Return the tokens of all sums but one; maps come before weights, in the order of the sums."""
    if tokens is None:
        return None
    half = len(tokens) // 2
    return [t for i, t in enumerate(tokens) if i not in (position, half + position)]
