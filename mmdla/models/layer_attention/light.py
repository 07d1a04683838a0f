"""Light layer attention: MRLA-L (ICLR 2023) and DLA-L (IJCAI 2024), linear in the depth."""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...ops import (
    Weights,
    is_fixed_affine,
    light_attention,
    light_attention_of_join,
    pools_of_join,
    takes_fast_path,
)
from ...ops.light import obstacle
from ..dsu import DSU, State, check_context, seen_context
from .heads import Heads, depthwise, pool
from .multi_head import MultiHeadAttention


class LightHeads(Heads):
    """:class:`Heads` of one block with its ``lambda`` (C, 1, 1)."""

    def __init__(self, channels: int, *args) -> None:
        super().__init__(channels, *args)
        self.lambda_ = nn.Parameter(torch.randn(channels, 1, 1))

    def gate(self, y: Tensor) -> Tensor:
        """``a = sigmoid(q·k / sqrt(d))`` of every head, for its channels: (B, C) to (B, C)."""
        return self.per_channel(self.similarity(*self.query_key(y)).sigmoid().to(y.dtype))


@MODELS.register_module()
class MRLALight(MultiHeadAttention):
    r"""MRLA-L: each block attends to itself and, through its shortcut, to all before it.

    .. math::
        o_l = \sigma(q_l k_l / \sqrt{d}) \odot V(x_l) + \lambda_l \odot s_l, \qquad
        x_l \leftarrow x_l + \mathrm{DropPath}(\mathrm{BN}(o_l))

    Arguments and errors are those of :class:`MultiHeadAttention`.
    """

    heads_type = LightHeads

    refreshes = False  # whether the newest context changes the shortcut

    def start_as_identity(self):
        for heads in self.blocks:
            if heads.norm.weight is None:
                raise ValueError('zero_init_attention needs a norm_cfg with affine=True')
            if not self.norm_cfg.get('requires_grad', True):
                raise ValueError(
                    'zero_init_attention needs norms that learn, '
                    'got layer_attention.norm_cfg with requires_grad=False'
                )
            nn.init.zeros_(heads.norm.weight)
            nn.init.zeros_(heads.norm.bias)

    def finish(self, index, residual, shortcut, state, last_norm=None):
        heads = self.blocks[index]
        layers = heads.norm, heads.drop_path
        if self.needs_gradients(residual, shortcut) or not (
            is_fixed_affine(heads.norm)
            and takes_fast_path(self.ops, residual, lambda: obstacle(residual, shortcut, *layers))
        ):
            return super().finish(index, residual, shortcut, state, last_norm)
        pooled = pools_of_join(residual, shortcut, last_norm)
        weights, state = self.weigh(index, pooled.x, pooled.s, state)
        out = light_attention_of_join(residual, shortcut, weights, *layers, last_norm)
        return out, state

    def attend(self, index, x, shortcut, state, pooled=None):
        heads = self.blocks[index]
        if pooled is None:
            y, y_shortcut, handover = pool(x), pool(shortcut) if self.refreshes else None, None
        else:
            y, y_shortcut, handover = pooled  # 2 x (B, C)
        weights, state = self.weigh(index, y, y_shortcut, state)
        layers = heads.norm, heads.drop_path
        return light_attention(x, shortcut, weights, *layers, self.ops, handover), state

    def weigh(
        self, index: int, y: Tensor, y_shortcut: Tensor | None, state: State | None
    ) -> tuple[Weights, State | None]:
        """What is made of the descriptors ``GAP(x_l)`` and ``GAP(s_l)``, each (B, C)."""
        heads = self.blocks[index]
        return Weights(heads.gate(y), heads.value.weight, heads.lambda_), state


@MODELS.register_module()
class DLALight(MRLALight):
    r"""DLA-L: MRLA-L over a shortcut that the newest context refreshes.

    .. math::
        (h_l, c_l) &= \mathrm{DSU}(\mathrm{GAP}(x_l), h_{l-1}, c_{l-1}) \\
        d_l &= \mathrm{DSU}_h(\mathrm{GAP}(s_l), h_l, c_l) \\
        \tilde s_l &= d_l \odot s_l + E(s_l)

    in place of :math:`s_l`; the unit and the depthwise 3x3 convolution :math:`E` are shared by
    the blocks of the stage, and the state that :math:`d_l` leaves is thrown away.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        reduction (int): Reduction of the :class:`DSU`; the releases use 16 for ImageNet, 20 for
            detection, 4 for CIFAR. Default: 16.
        form (str): Form of the :class:`DSU`. Default: ``'released'``.
        context (str): Whose context refreshes a sample: its own (``'sample'``), or that of the
            batch's first sample (``'first'``), as in the authors' code, where the result for a
            picture depends on its batch. For checks against their numbers. Default: ``'sample'``.
        **kwargs: As :class:`MRLALight`.
    """

    refreshes = True

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        reduction: int = 16,
        form: str = 'released',
        context: str = 'sample',
        **kwargs,
    ) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        self.context = check_context(context)
        self.dsu = DSU(channels, reduction, form)
        self.extract = depthwise(channels)

    def weigh(self, index, y, y_shortcut, state):
        weights, _ = super().weigh(index, y, y_shortcut, state)
        of_inputs = self.dsu.of_input(torch.stack((y, y_shortcut), 1))  # (B, 2, 3C)
        h, c = self.dsu(y, state, of_inputs[:, 0])  # 2 x (B, C)
        state = (h, c, self.dsu.of_context(h, c))
        d, _ = self.dsu(y_shortcut, seen_context(state, self.context), of_inputs[:, 1])  # (B, C)
        return Weights(*weights[:3], d, self.extract.weight), state
