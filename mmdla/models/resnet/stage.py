"""A ResNet stage: its blocks and the one layer attention that serves them."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..layer_attention import LayerAttention
from .recompute import checkpoint


class ResStage(BaseModule):
    """Run blocks in order and let a layer attention work on each of them.

    The blocks are children named ``0``, ``1``, ... as in torchvision, the attention is
    ``attention``; ``stage[i]``, ``len(stage)`` and iteration speak of the blocks.

    Args:
        blocks (list[nn.Module]): Modules with ``block(x) -> (residual, shortcut)``.
        attention (LayerAttention, optional): ``None`` makes a plain ResNet stage.
        with_cp (bool): Recompute every block, with its attention, in the backward pass.
    """

    def __init__(
        self, blocks: list[nn.Module], attention: LayerAttention | None, with_cp: bool = False
    ) -> None:
        super().__init__()
        self.num_blocks = len(blocks)
        for i, block in enumerate(blocks):
            self.add_module(str(i), block)
        self.attention = attention
        self.with_cp = with_cp

    def __len__(self) -> int:
        return self.num_blocks

    def __getitem__(self, index: int) -> nn.Module:
        if not -self.num_blocks <= index < self.num_blocks:
            raise IndexError(f'block {index} of {self.num_blocks}')
        return self._modules[str(index % self.num_blocks)]

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[i] for i in range(self.num_blocks))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C, H/stride, W/stride)."""
        state = None
        for index in range(self.num_blocks):
            if self.with_cp and torch.is_grad_enabled():
                x, state = checkpoint(self, self._step, index, x, state)
            else:
                x, state = self._step(index, x, state)
        return x

    def _step(self, index: int, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        block = self[index]
        if self._fuses_norm(block):
            residual, shortcut = block(x, last_norm=False)  # 2 x (B, C, H, W)
            return self.attention.finish(index, residual, shortcut, state, block.last_norm)
        residual, shortcut = block(x)  # 2 x (B, C, H, W)
        if self.attention is None:
            residual = block.drop_path(residual)
            residual += shortcut
            return block.relu(residual), state
        residual, state = self.attention.recalibrate(index, residual, state)
        return self.attention.finish(index, block.drop_path(residual), shortcut, state)

    def _fuses_norm(self, block: nn.Module) -> bool:
        """Whether the attention makes the last norm of a block part of its own work."""
        if torch.is_grad_enabled() or self.attention is None or not self.attention.fuses_norm:
            return False
        return block.can_leave_norm()
