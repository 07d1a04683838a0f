"""Full layer attention: MRLA-B (ICLR 2023) and DLA-B (IJCAI 2024), every block over all before it.

A value map is kept once, as its block made it: what DLA-B does to it is a product with a channel
vector, and ``GAP(g ⊙ v) = g ⊙ GAP(v)``, so the products are kept as vectors beside the maps.
"""

from typing import NamedTuple

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...ops import Pending, full_attention, value_map
from ..arguments import check_choice
from ..dsu import DSU, check_context, seen_context
from ..dsu import State as Context
from .heads import Heads, pool
from .multi_head import MultiHeadAttention

REFRESH = dict(released=1.0, residual=2.0)  # factors of the DSU's hidden state


class Earlier(NamedTuple):
    """Keys and values of the blocks so far, ``m`` of them.

    Attributes:
        keys (Tensor): ``k_m``, shape (B, m, C).
        gates (Tensor): What the values have been multiplied with, shape (B, m, C).
        pooled (Tensor): ``GAP(v_m)`` with that, shape (B, m, C).
        values (tuple[Tensor]): The maps ``v_m`` before that, m x (B, C, H, W).
        pending (Pending): For the gradients of the values.
        context (tuple[Tensor, ...], optional): State of the DSU, as it takes it.
    """

    keys: Tensor
    gates: Tensor
    pooled: Tensor
    values: tuple[Tensor, ...]
    pending: Pending
    context: Context | None = None

    def append(self, key: Tensor, value: Tensor, pooled: Tensor) -> 'Earlier':
        """One block more: ``k_l`` (B, C), ``v_l`` (B, C, H, W) and ``GAP(v_l)`` (B, C)."""
        rows = (key, torch.ones_like(key), pooled)  # 3 x (B, C)
        keys, gates, pooled = (
            torch.cat((stack, row.unsqueeze(1)), 1)
            for stack, row in zip(self[:3], rows, strict=True)
        )  # 3 x (B, m, C)
        return Earlier(keys, gates, pooled, (*self.values, value), self.pending, self.context)


def none_before(y: Tensor, num_blocks: int, context: Context | None = None) -> Earlier:
    """The state before the first block of a stage, for descriptors like ``y`` (B, C)."""
    nothing = y.new_empty(y.shape[0], 0, y.shape[1])
    return Earlier(nothing, nothing, nothing, (), Pending(num_blocks), context)


class FullHeads(Heads):
    """:class:`Heads` of one block, with an optional scale (C, 1, 1) of its output.

    The scale is there only for the start as the identity. Zero norm weights, which serve MRLA-L and
    DLA-L, would never leave zero here: the gradient of the ReLU behind them is zero there.
    """

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.scale: nn.Parameter | None = None

    def start_with_zero_scale(self) -> None:
        if self.scale is None:
            weight = self.value.weight  # (C, 1, 3, 3)
            self.scale = nn.Parameter(weight.new_empty(len(weight), 1, 1))
        nn.init.zeros_(self.scale)


@MODELS.register_module()
class MRLABase(MultiHeadAttention):
    r"""MRLA-B: each block attends to itself and all earlier blocks of its stage.

    .. math::
        o_l = \sum_{m \le l} \mathrm{softmax}_m(q_l k_m / \sqrt{d})\, v_m, \qquad
        x_l \leftarrow x_l + \mathrm{DropPath}(\mathrm{ReLU}(\mathrm{BN}(o_l)))

    Arguments and errors are those of :class:`MultiHeadAttention`.
    """

    heads_type = FullHeads

    def start_as_identity(self):
        for heads in self.blocks:
            heads.start_with_zero_scale()

    def attend(self, index, x, shortcut, state, pooled=None):
        heads = self.blocks[index]
        y = pool(x) if pooled is None else pooled.x  # (B, C)
        earlier = self.refresh(y, state)
        q, k = heads.query_key(y)  # 2 x (B, C)
        state = earlier.append(k, *value_map(x, heads.value.weight, self.ops))
        weight = heads.similarity(q.unsqueeze(1), state.keys).softmax(1)  # (B, m, heads)
        weight = weight.to(q.dtype)
        weight = heads.per_channel(weight) * state.gates  # (B, m, C)
        tail = (heads.norm, heads.drop_path, heads.scale, state.pending, self.ops)
        x_is_free = pooled is not None and not self.needs_gradients(x)
        return full_attention(x, weight, state.values, *tail, x_is_free), state

    def maps_summed(self, index):
        return index + 1 if index else 0  # one map alone is not weighted: its weight is 1

    def refresh(self, y: Tensor, state: Earlier | None) -> Earlier:
        """What the block sees of the earlier ones: here their keys and values as they were."""
        return none_before(y, self.num_blocks) if state is None else state


@MODELS.register_module()
class DLABase(MRLABase):
    r"""DLA-B: MRLA-B over keys and values that every newer context refreshes.

    With :math:`(h_l, c_l) = \mathrm{DSU}(\mathrm{GAP}(x_l), h_{l-1}, c_{l-1})`, for all
    :math:`m < l` and cumulatively,

    .. math::
        k_m \leftarrow k_m \odot \mathrm{DSU}_h(k_m, h_l, c_l), \qquad
        v_m \leftarrow v_m \odot \mathrm{DSU}_h(\mathrm{GAP}(v_m), h_l, c_l)

    :math:`\mathrm{DSU}_h = \sigma(c')` is near 1/2 before anything is learned, so that every new
    block halves what is left of the old ones: 0.05 % of the first value after 12 blocks.
    ``refresh='residual'`` multiplies by :math:`2\sigma(c') = 1 + \tanh(c'/2)` instead, in (0, 2)
    and near 1 at first: what is old stays unless the unit learns to change it.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        reduction (int): Reduction of the :class:`DSU`. Default: 16.
        form (str): Form of the :class:`DSU`. Default: ``'released'``.
        context (str): Whose context refreshes a sample: its own (``'sample'``), or that of the
            batch's first sample (``'first'``), as in the authors' code, where the result for a
            picture depends on its batch. For checks against their numbers. Default: ``'sample'``.
        refresh (str): What keys and values are multiplied with: the hidden state (``'released'``)
            or twice that (``'residual'``). Default: ``'released'``.
        **kwargs: As :class:`MRLABase`.
    """

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        reduction: int = 16,
        form: str = 'released',
        context: str = 'sample',
        refresh: str = 'released',
        **kwargs,
    ) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        self.context = check_context(context)
        self.gain = REFRESH[check_choice('refresh', refresh, REFRESH)]
        dsu = DSU(channels, reduction, form)
        self.dsu = dsu if num_blocks > 1 else None  # one block has nothing to refresh

    def refresh(self, y, state):
        if state is None:
            context = self.carried(*self.dsu(y)) if self.dsu else None
            return none_before(y, self.num_blocks, context)
        described = torch.cat((y.unsqueeze(1), state.keys, state.pooled), 1)  # (B, 1 + 2m, C)
        of_inputs = self.dsu.of_input(described)  # (B, 1 + 2m, 3C)
        context = self.carried(*self.dsu(y, state.context, of_inputs[:, 0]))
        seen = tuple(part.unsqueeze(1) for part in seen_context(context, self.context))
        fresh, _ = self.dsu(described[:, 1:], seen, of_inputs[:, 1:])  # (B, 2m, C)
        for_keys, for_values = (self.gain * fresh).chunk(2, 1)  # 2 x (B, m, C)
        return Earlier(  # torch.compile of PyTorch 2.4 knows no _replace
            state.keys * for_keys,
            state.gates * for_values,
            state.pooled * for_values,
            state.values,
            state.pending,
            context,
        )

    def carried(self, h: Tensor, c: Tensor) -> Context:
        """What is kept of a step, for the refresh and the next step."""
        return h, c, self.dsu.of_context(h, c)
