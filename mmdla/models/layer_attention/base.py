"""Base layer attention: every block attends over all before it.

MRLA-B: "Cross-Layer Retrospective Retrieving via Layer Attention" (ICLR 2023, arXiv:2302.03985);
official implementation: https://github.com/joyfang1106/MRLA.
DLA-B: "Strengthening Layer Interaction via Dynamic Layer Attention" (IJCAI 2024, arXiv:2406.13392);
official implementation: https://github.com/tunantu/Dynamic-Layer-Attention.

A value map is kept once, as its block made it: what DLA-B does to it is a product with a channel
vector, and ``GAP(g ⊙ v) = g ⊙ GAP(v)``, so the products are kept as vectors beside the maps.
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor

from ...ops import (
    add_relu_pool,
    affine_add_relu_pool,
    base_block,
    base_block_,
    base_coefficients,
    carry_gradients,
    dwconv_pool,
    new_tokens,
    weighted_sum_bn_relu_add,
    weighted_sum_relu_add,
)
from ...ops.backend import at_least_float32
from ...ops.batch_norm import (
    affine_of,
    drop_path_scale,
    rounded_affine,
    statistics_of,
    update_statistics,
)
from ...ops.carried import weighted_sum_reference
from ...ops.choice import kernels_run
from ..arguments import check_choice
from ..dsu import DSU, check_context, seen_context
from ..dsu import State as Context
from .earlier import Earlier, none_before, without
from .heads import Heads, pool
from .multi_head import MultiHeadAttention
from .scale import ScaledAttention, ScaledHeads

REFRESH = dict(released=1.0, residual=2.0)  # factors of the DSU's hidden state


class BaseHeads(ScaledHeads, Heads):
    """:class:`Heads` of one block, whose output may have a scale."""


@MODELS.register_module()
class MRLABase(ScaledAttention, MultiHeadAttention):
    r"""MRLA-B: each block attends to itself and all earlier blocks of its stage.

    .. math::
        o_l = \sum_{m \le l} \mathrm{softmax}_m(q_l k_m / \sqrt{d})\, v_m, \qquad
        x_l \leftarrow x_l + \mathrm{DropPath}(\mathrm{ReLU}(\mathrm{BN}(o_l)))

    Arguments and errors are those of :class:`MultiHeadAttention`.
    """

    heads_type = BaseHeads

    def attend(self, index, x, shortcut, state):
        heads = self.blocks[index]
        y = pool(x)  # (B, C)
        self.show(index, y, None, state)
        earlier = self.refresh(y, state)
        q, k = heads.query_key(y)  # 2 x (B, C)
        value = heads.value(x)  # (B, C, H, W)
        tokens = self.tokens_of(index, state, value, k)
        state = earlier.append(k, value, pool(value), without(tokens, 0))
        weights = self.weigh(heads, q, state)  # (B, m, C)
        o = heads.o(weighted_sum_reference(weights, state.values))  # (B, C, H, W)
        out = heads.norm(o).relu()  # (B, C, H, W)
        out = heads.drop_path(out if heads.scale is None else heads.scale * out)
        return x + out.type_as(x), state  # under autocast parts of it are in float32

    def weigh(self, heads: BaseHeads, q: Tensor, state: Earlier) -> Tensor:
        """Return the weights (B, m, C) of the maps as they are kept, for a query (B, C)."""
        weights = heads.similarity(q.unsqueeze(1), state.keys).softmax(1)  # (B, m, heads)
        return heads.per_channel(weights.to(q.dtype)) * state.gates  # (B, m, C)

    def tokens_of(
        self, index: int, earlier: Earlier | None, value: Tensor, key: Tensor
    ) -> list[Tensor] | None:
        """Let the tokens of this and the later sums pass the new map, so that it gets gradients."""
        if not torch.is_grad_enabled() or not kernels_run(self.ops, value):
            return None
        if index == 0:
            tokens = new_tokens(value, key, self.num_blocks)
        elif earlier.tokens is None:
            return None
        else:
            tokens = earlier.tokens
        return carry_gradients(value, index, tokens)

    def can_carry(self, shortcut, state):
        return state is None or state.tokens is not None or not torch.is_grad_enabled()

    def run_vectors(self, index, y, y_shortcut, state):
        self.refresh(y, state)
        self.blocks[index].query_key(y)

    def infer(self, index, residual, shortcut, state, last_norm, overwritable):
        heads = self.blocks[index]
        last_eps = 0.0 if last_norm is None else last_norm.eps
        last = statistics_of(last_norm), last_eps
        if self.recorder is not None:
            affine = rounded_affine(*last, residual)  # 2 x (B, C)
            y = affine_add_relu_pool(residual, shortcut, *affine)[1]  # (B, C)
            self.show(index, y, None, state)
        keep = drop_path_scale(residual, heads.drop_path)  # (B, 1)
        branch = statistics_of(heads.norm), heads.norm.eps, keep, heads.scale
        _, _, value = weights = heads.weights()
        values = [] if state is None else list(state.values)
        block = residual, shortcut, *last, value, values, *branch
        rest = self.coefficients(heads, weights, residual, state)
        if overwritable:
            out, found = residual, base_block_(*block, *rest)
        else:
            out, *found = base_block(*block, *rest)
        value, *vectors = found  # (B, C, H, W)
        return out, self.carry(vectors, (*values, value), None)

    def train_step(self, index, residual, shortcut, state):
        heads = self.blocks[index]
        x, y, _, _ = add_relu_pool(residual, shortcut)  # (B, C, H, W), (B, C)
        self.show(index, y, None, state)
        weights = heads.weights()
        value, pooled = dwconv_pool(x, weights[2])  # (B, C, H, W), (B, C)
        tokens = self.tokens_of(index, state, value, y)
        if tokens is None:  # no gradients
            tokens = new_tokens(value, y, 1)
        token = tokens[0], tokens[len(tokens) // 2]
        rest = self.coefficients(heads, weights, x, state)
        weights, *vectors = base_coefficients(y, pooled, *rest)  # (B, m, C)
        values = (*(() if state is None else state.values), value)
        state = self.carry(vectors, values, without(tokens, 0))
        keep, norm = self.keep(heads, x), heads.norm  # (B, C)
        if not norm.training:
            vectors = (v.expand_as(keep) for v in affine_of(statistics_of(norm), norm.eps))
            return weighted_sum_relu_add(x, weights, list(values), *token, keep, *vectors), state
        out, mean, var = weighted_sum_bn_relu_add(
            x, weights, list(values), *token, keep, norm.weight, norm.bias, norm.eps
        )
        update_statistics(norm, mean, var, x.numel() // x.shape[1])
        return out, state

    def coefficients(
        self, heads: BaseHeads, weights: tuple, x: Tensor, state: Earlier | None
    ) -> tuple:
        """Return the arguments of :mod:`mmdla.ops.base_coefficients` behind the poolings.

        Args:
            heads (BaseHeads): Those of the block.
            weights (tuple[Tensor]): What ``heads.weights()`` returns.
            x (Tensor): A map of the block, shape (B, C, H, W).
            state (Earlier, optional): Of the blocks before.
        """
        if state is None:
            nothing = x.new_empty(len(x), 0, x.shape[1], dtype=at_least_float32(x.dtype))
            vectors, context = (nothing, nothing, nothing), None
        else:
            vectors, context = state[:3], state.context
        c, u = (None, None) if context is None else context[1:]
        return *vectors, u, c, *weights[:2], self.unit(), heads.head_channels, *self.refreshing()

    def unit(self) -> list[Tensor]:
        """Return the weights of the recurrent unit."""
        return []

    def refreshing(self) -> tuple[float, bool]:
        """Return the factor of the refresh, and whether one context refreshes all samples."""
        return 1.0, False

    def carry(
        self, vectors: list[Tensor], values: tuple[Tensor], tokens: list[Tensor] | None
    ) -> Earlier:
        """Return the state from what an operation returned: keys, gates, poolings, and h, c, u."""
        dtype = self.blocks[0].query.weight.dtype  # as the modules would have it
        keys, gates, pooled, *context = (v.to(dtype) for v in vectors)
        context = tuple(context) if context[0].numel() else None
        return Earlier(keys, gates, pooled, values, tokens, context)

    def keep(self, heads: BaseHeads, x: Tensor) -> Tensor:
        """Return the factors of the whole branch, from drop path and the heads' scale: (B, C)."""
        keep = drop_path_scale(x, heads.drop_path)  # (B, 1)
        if keep is None:
            keep = x.new_ones(len(x), 1, dtype=heads.norm.weight.dtype)
        if heads.scale is None:
            return keep.expand(x.shape[:2])
        return keep * heads.scale.view(1, -1)

    def maps_summed(self, index):
        return index + 1 if index else 0  # one map alone is not weighted: its weight is 1

    def refresh(self, y: Tensor, state: Earlier | None) -> Earlier:
        """Return what the block sees of the earlier ones: their keys and values as they were."""
        return none_before(y) if state is None else state


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
            batch's first sample (``'first'``), as in the official implementation, where the result
            for an image depends on its batch. For checks against its numbers. Default:
            ``'sample'``.
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

    def shared_modules(self):
        yield from super().shared_modules()
        if self.dsu is not None:
            yield from self.dsu.parts()

    def is_as_written(self) -> bool:
        return super().is_as_written() and (self.dsu is None or self.dsu.is_plain())

    def unit(self):
        return [] if self.dsu is None else self.dsu.weights()

    def refreshing(self):
        return self.gain, self.context == 'first'

    def refresh(self, y, state):
        if state is None:
            context = self.carried(*self.dsu(y)) if self.dsu else None
            return none_before(y, context)
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
            state.tokens,
            context,
        )

    def carried(self, h: Tensor, c: Tensor) -> Context:
        """Return what is kept of a step, for the refresh and the next step."""
        return h, c, self.dsu.of_context(h, c)
