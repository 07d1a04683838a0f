"""Light layer attention, linear in the depth.

MRLA-L: "Cross-Layer Retrospective Retrieving via Layer Attention" (ICLR 2023, arXiv:2302.03985);
official implementation: https://github.com/joyfang1106/MRLA.
DLA-L: "Strengthening Layer Interaction via Dynamic Layer Attention" (IJCAI 2024, arXiv:2406.13392);
official implementation: https://github.com/tunantu/Dynamic-Layer-Attention.
"""

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn

from ...ops import (
    add_relu_pool,
    affine_add_relu_pool,
    dual_dwconv,
    dual_dwconv_bn,
    light_block,
    light_block_,
    light_coefficients,
)
from ...ops.batch_norm import drop_path_scale, rounded_affine, statistics_of, update_statistics
from ..dsu import DSU, State, check_context, seen_context
from .heads import Heads, depthwise, is_plain_conv, pool
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

    refreshes = False  # whether the newest context changes the shortcut, with a conv ``extract``

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

    def attend(self, index, x, shortcut, state):
        heads = self.blocks[index]
        y_shortcut = pool(shortcut) if self.refreshes else None  # (B, C)
        y = pool(x)  # (B, C)
        self.show(index, y, y_shortcut, state)
        a, d, state = self.weigh(index, y, y_shortcut, state)
        earlier = shortcut if d is None else d[..., None, None] * shortcut  # (B, C, H, W)
        if self.refreshes:
            earlier = earlier + self.extract(shortcut)
        o = a[..., None, None] * heads.value(x) + heads.lambda_ * earlier  # (B, C, H, W)
        out = heads.drop_path(heads.norm(heads.o(o)))  # (B, C, H, W)
        return x + out.type_as(x), state  # under autocast o is in float32

    def weigh(
        self, index: int, y: Tensor, y_shortcut: Tensor | None, state: State | None
    ) -> tuple[Tensor, Tensor | None, State | None]:
        """Return what a block weights its maps with.

        Args:
            index (int): Block of the stage, from 0.
            y (Tensor): ``GAP(x_l)``, shape (B, C).
            y_shortcut (Tensor, optional): ``GAP(s_l)``, shape (B, C); needed if ``refreshes``.
            state (tuple[Tensor, ...], optional): What the previous call returned.

        Returns:
            tuple: ``a`` (B, C); ``d`` (B or 1, C), ``None`` for 1; the next state.
        """
        return self.blocks[index].gate(y), None, state

    def run_vectors(self, index, y, y_shortcut, state):
        self.weigh(index, y, y_shortcut, state)

    def infer(self, index, residual, shortcut, state, last_norm, overwritable):
        last_eps = 0.0 if last_norm is None else last_norm.eps
        block = residual, shortcut, statistics_of(last_norm), last_eps
        if self.recorder is not None:
            affine = rounded_affine(statistics_of(last_norm), last_eps, residual)  # 2 x (B, C)
            self.show(index, *affine_add_relu_pool(residual, shortcut, *affine)[1:], state)
        rest = self.coefficients(index, residual, state, with_norm=True)
        if overwritable:
            return residual, light_block_(*block, *rest)
        out, *state = light_block(*block, *rest)
        return out, state

    def train_step(self, index, residual, shortcut, state):
        heads = self.blocks[index]
        x, *pooled, token = add_relu_pool(residual, shortcut)  # pooled: 2 x (B, C)
        self.show(index, *pooled, state)
        batch_statistics = heads.norm.training
        rest = self.coefficients(index, x, state, with_norm=not batch_statistics)
        kx, ks, bias, *state = light_coefficients(*pooled, *rest)  # 2 x (B, C, 9), (B, C)
        if not batch_statistics:
            return dual_dwconv(x, shortcut, token, kx, ks, bias), state
        norm, keep = heads.norm, drop_path_scale(x, heads.drop_path)  # (B, 1)
        out, mean, var = dual_dwconv_bn(
            x, shortcut, token, kx, ks, norm.weight, norm.bias, keep, norm.eps
        )
        update_statistics(norm, mean, var, x.numel() // x.shape[1])
        return out, state

    def coefficients(self, index: int, x: Tensor, state: State | None, with_norm: bool) -> tuple:
        """Return the arguments of :mod:`mmdla.ops.light_coefficients` behind the poolings.

        Args:
            index (int): Block of the stage, from 0.
            x (Tensor): A map, for drop path, shape (B, C, H, W).
            state (tuple[Tensor, ...], optional): What the previous call returned.
            with_norm (bool): Whether the norm, of running statistics, is folded in.
        """
        heads = self.blocks[index]
        c, u = (None, None) if state is None or not self.refreshes else state[1:]
        weights = *heads.weights(), heads.lambda_
        norm, keep = [], None
        if with_norm:
            norm, keep = statistics_of(heads.norm), drop_path_scale(x, heads.drop_path)
        unit = (None, []) if not self.refreshes else (self.extract.weight, self.dsu.weights())
        first = self.refreshes and self.context == 'first'
        return (u, c, *weights, *unit, norm, heads.norm.eps, keep, heads.head_channels, first)


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
            batch's first sample (``'first'``), as in the official implementation, where the result
            for an image depends on its batch. For checks against its numbers. Default:
            ``'sample'``.
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

    def shared_modules(self):
        yield from super().shared_modules()
        yield from self.dsu.parts()
        yield self.extract

    def is_as_written(self) -> bool:
        return super().is_as_written() and is_plain_conv(self.extract) and self.dsu.is_plain()

    def weigh(self, index, y, y_shortcut, state):
        a, _, _ = super().weigh(index, y, y_shortcut, state)
        of_inputs = self.dsu.of_input(torch.stack((y, y_shortcut), 1))  # (B, 2, 3C)
        h, c = self.dsu(y, state, of_inputs[:, 0])  # 2 x (B, C)
        state = (h, c, self.dsu.of_context(h, c))
        d, _ = self.dsu(y_shortcut, seen_context(state, self.context), of_inputs[:, 1])  # (B, C)
        return a, d, state
