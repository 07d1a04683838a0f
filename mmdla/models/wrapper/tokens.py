"""MRLA for vision transformers.

"Cross-Layer Retrospective Retrieving via Layer Attention" (ICLR 2023, arXiv:2302.03985);
official implementation: https://github.com/joyfang1106/MRLA, its folder ``deit``.

Other than in the ResNets the input is normed rather than the output, and the class token, which is
no part of the map, gets its own normed value added.
"""

import math

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..arguments import check_cfg, check_init_cfg, check_int, errors_named
from ..layer_attention.heads import channel_conv, depthwise, pool

Grid = tuple[int, int]  # height and width, in tokens


def to_map(tokens: Tensor, grid: Grid) -> Tensor:
    """(B, H * W, C) to (B, C, H, W), a view; in channels_last layout if they are contiguous."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


def to_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) to (B, H * W, C), a view; contiguous if ``x`` is in channels_last layout."""
    return x.flatten(2).transpose(1, 2)


class TokenHeads(nn.Module):
    """Norm, query, key and value of one block.

    Args:
        channels (int): Channels ``C`` of a token.
        head_channels (int): Channels ``d`` of a head of the layer attention.
        kernel_size (int, optional): Odd width of the channel convolutions. Default: from ``C``.
        norm_cfg (dict): Norm of the tokens.
    """

    def __init__(
        self, channels: int, head_channels: int, kernel_size: int | None, norm_cfg: dict
    ) -> None:
        super().__init__()
        self.head_channels = head_channels
        self.norm_x = build_token_norm(norm_cfg, channels)
        self.query = channel_conv(channels, kernel_size)
        self.key = channel_conv(channels, kernel_size)
        self.value = depthwise(channels)

    def query_key(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Query and key of the descriptor ``y`` (B, C), each (B, C)."""
        y = y.unsqueeze(1)  # (B, 1, C)
        return self.query(y).squeeze(1), self.key(y).squeeze(1)

    def similarity(self, q: Tensor, k: Tensor) -> Tensor:
        """``<q_g, k_g> / sqrt(d)`` of every head, (..., C) to (..., G), at least in float32."""
        dtype = torch.promote_types(q.dtype, torch.float32)
        qk = q.to(dtype) * k.to(dtype)  # (..., C)
        qk = qk.reshape(*qk.shape[:-1], -1, self.head_channels)  # (..., G, d); exports to opset 11
        return qk.sum(-1) / math.sqrt(self.head_channels)

    def per_channel(self, weight: Tensor) -> Tensor:
        """Repeat the value of every head for its channels: (..., G) to (..., C)."""
        repeated = weight.unsqueeze(-1).expand(*weight.shape, self.head_channels)  # (..., G, d)
        return repeated.flatten(-2)

    def start_as_identity(self) -> None:
        """With ``u = 0`` nothing is added; the norm learns from there."""
        nn.init.zeros_(self.norm_x.weight)
        nn.init.zeros_(self.norm_x.bias)


class LightTokenHeads(TokenHeads):
    """:class:`TokenHeads` with the norm of the block's input and its weight ``lambda`` (C)."""

    def __init__(self, channels: int, *args) -> None:
        super().__init__(channels, *args)
        self.norm_o = build_token_norm(args[-1], channels)
        self.lambda_ = nn.Parameter(torch.randn(channels))

    def start_as_identity(self) -> None:
        super().start_as_identity()
        nn.init.zeros_(self.lambda_)


class TokenAttention(BaseModule):
    r"""Base class of the layer attentions over tokens; one instance serves one stage.

    With :math:`u = \mathrm{LN}(x)` of all tokens and :math:`o` made of the patch tokens,

    .. math::
        x \leftarrow x + [u_0, o]

    where :math:`u_0` are the tokens that are no patches (the class token).

    Args:
        channels (int): Channels ``C`` of a token.
        num_blocks (int): Blocks of the stage.
        head_channels (int): Channels ``d`` of one head (not of the self-attention). Default: 16.
        kernel_size (int, optional): Odd width of the channel convolutions. Default: from ``C``.
        norm_cfg (dict, optional): Norm of the tokens. Default: ``dict(type='LN', eps=1e-6)``.
        init_cfg (dict, optional): Initialization config of MMEngine.

    Raises:
        ValueError: ``head_channels`` does not divide ``channels``, ``kernel_size`` is even, or
            ``norm_cfg`` is no norm of tokens.
    """

    heads_type: type[TokenHeads]

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        head_channels: int = 16,
        kernel_size: int | None = None,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(check_init_cfg(init_cfg) or None)
        self.channels = check_int('channels', channels)
        self.num_blocks = check_int('num_blocks', num_blocks)
        if channels % check_int('head_channels', head_channels):
            raise ValueError(
                f'head_channels must divide the {channels} channels of a token, got {head_channels}'
            )
        if norm_cfg is None:
            norm_cfg = dict(type='LN', eps=1e-6)
        self.norm_cfg = check_cfg('norm_cfg', norm_cfg)
        self.blocks = nn.ModuleList(
            self.heads_type(channels, head_channels, kernel_size, self.norm_cfg)
            for _ in range(num_blocks)
        )

    def start_as_identity(self) -> None:
        """Change the parameters so that ``x`` is returned, and can still be learned from."""
        for heads in self.blocks:
            if heads.norm_x.weight is None:
                raise ValueError('zero_init_attention needs a norm_cfg with affine=True')
            heads.start_as_identity()

    def forward(
        self,
        index: int,
        x: Tensor,
        shortcut: Tensor,
        state: tuple | None,
        grid: Grid,
        extra_tokens: int = 0,
    ) -> tuple[Tensor, tuple | None]:
        """Add the layer attention to the output of block ``index``.

        Args:
            index (int): Block of the stage, from 0.
            x (Tensor): Output of the block, shape (B, E + H * W, C).
            shortcut (Tensor): Its input, same shape.
            state (tuple, optional): What the previous call returned.
            grid (tuple[int, int]): ``H`` and ``W``.
            extra_tokens (int): ``E``, the leading tokens that are no patches. Default: 0.

        Returns:
            tuple[Tensor, tuple | None]: The new output and the next state.
        """
        u = self.blocks[index].norm_x(x)  # (B, E + N, C)
        patches = to_map(u[:, extra_tokens:], grid)  # (B, C, H, W)
        o, state = self.attend(index, patches, shortcut[:, extra_tokens:], state)  # (B, N, C)
        if extra_tokens:
            o = torch.cat((u[:, :extra_tokens], o), 1)  # (B, E + N, C)
        return x + o, state

    def attend(
        self, index: int, patches: Tensor, shortcut: Tensor, state: tuple | None
    ) -> tuple[Tensor, tuple | None]:
        """``o`` (B, N, C) of the normed patches (B, C, H, W) and the block's input (B, N, C)."""
        raise NotImplementedError


@MODELS.register_module()
class MRLALightTokens(TokenAttention):
    r"""MRLA-L for vision transformers.

    .. math::
        o_l = \sigma(q_l k_l / \sqrt{d}) \odot \mathrm{GELU}(V(u_l)) +
        \lambda_l \odot \mathrm{LN}(s_l)

    with the input :math:`s_l` of the block. Arguments are those of :class:`TokenAttention`.
    """

    heads_type = LightTokenHeads

    def attend(self, index, patches, shortcut, state):
        heads = self.blocks[index]
        gate = heads.similarity(*heads.query_key(pool(patches))).sigmoid()  # (B, G)
        value = F.gelu(to_tokens(heads.value(patches)))  # (B, N, C)
        gate = heads.per_channel(gate.to(value.dtype)).unsqueeze(1)  # (B, 1, C)
        return gate * value + heads.lambda_ * heads.norm_o(shortcut), state


@MODELS.register_module()
class MRLABaseTokens(TokenAttention):
    r"""MRLA-B for vision transformers.

    .. math::
        o_l = \sum_m \mathrm{softmax}_m(q_l k_m / \sqrt{d}) \odot V_m

    over the blocks :math:`m` since the last restart, :math:`l` included.

    Args:
        channels (int): Channels ``C`` of a token.
        num_blocks (int): Blocks of the stage.
        restart (int): Keys and values are forgotten before every block whose index it divides.
            Default: 4, as published.
        **kwargs: As :class:`TokenAttention`.
    """

    heads_type = TokenHeads

    def __init__(self, channels: int, num_blocks: int, restart: int = 4, **kwargs) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        self.restart = check_int('restart', restart)

    def attend(self, index, patches, shortcut, state):
        heads = self.blocks[index]
        keys, values = ((), ()) if state is None or index % self.restart == 0 else state
        q, k = heads.query_key(pool(patches))  # 2 x (B, C)
        keys = (*keys, k)
        values = (*values, to_tokens(heads.value(patches)))  # m x (B, N, C)
        scores = heads.similarity(q.unsqueeze(1), torch.stack(keys, 1))  # (B, m, G)
        weights = heads.per_channel(scores.softmax(1).to(q.dtype))  # (B, m, C)
        o = sum(weights[:, m : m + 1] * value for m, value in enumerate(values))  # (B, N, C)
        return o, (keys, values)


def build_token_norm(cfg: dict, channels: int) -> nn.Module:
    """``mmcv.cnn.build_norm_layer``; the layer must be one for tokens (B, N, C)."""
    with errors_named('norm_cfg'):
        norm = build_norm_layer(cfg, channels)[1]
    if not isinstance(norm, nn.LayerNorm):
        raise ValueError(f'norm_cfg must be a norm of tokens (B, N, C), such as LN, got {cfg!r}')
    return norm
