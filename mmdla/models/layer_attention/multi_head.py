"""What the attentions of the MRLA family share: heads for every block, and how a block ends."""

import torch
from torch import Tensor, nn

from ...ops import check_ops, join, join_normed, takes_fast_path
from ...ops.backend import obstacle
from .heads import Heads
from .interface import LayerAttention


class MultiHeadAttention(LayerAttention):
    """Layer attention with a query, a key and a value in every block.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        head_channels (int): Channels ``d`` of one head. Default: 32.
        kernel_size (int, optional): Odd width of the channel convolutions. Default: from ``C``.
        drop_path_rate (float): Drop path of the attention branch. Default: 0.
        ops (str): Implementation, ``'reference'``, ``'fast'`` or ``'auto'``: the fast one where it
            can run. Default: ``'auto'``.
        norm_cfg (dict, optional): Norm layers. Default: ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine.

    Raises:
        ValueError: ``head_channels`` does not divide ``channels``, ``kernel_size`` is even, or
            ``ops`` is unknown.
    """

    heads_type: type[Heads]
    fuses_norm = True

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        head_channels: int = 32,
        kernel_size: int | None = None,
        drop_path_rate: float = 0.0,
        ops: str = 'auto',
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(channels, num_blocks, norm_cfg, init_cfg)
        self.ops = check_ops(ops)
        self.blocks = nn.ModuleList(
            self.heads_type(channels, head_channels, kernel_size, self.norm_cfg, drop_path_rate)
            for _ in range(num_blocks)
        )

    def finish(self, index, residual, shortcut, state, last_norm=None):
        if last_norm is None:
            x, pooled = join(residual, shortcut, self.ops)
        elif takes_fast_path(self.ops, residual, lambda: obstacle(residual, shortcut)):
            x, pooled = join_normed(residual, shortcut, last_norm)
        else:
            x, pooled = join(last_norm(residual), shortcut, self.ops)
        return self.attend(index, x, shortcut, state, pooled)

    def attend(self, index, x, shortcut, state, pooled=None):
        """As in the base class, with ``GAP(x)`` and ``GAP(shortcut)`` where they are known."""
        raise NotImplementedError

    def needs_gradients(self, *inputs: Tensor) -> bool:
        """Whether a backward pass may go through this attention."""
        if not torch.is_grad_enabled():
            return False
        return any(t.requires_grad for t in (*inputs, *self.parameters()))
