"""A ResNet stage: its blocks and the one layer attention that serves them."""

from collections.abc import Iterator
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...ops.choice import has_pre_hooks
from ..layer_attention import LayerAttention
from .recompute import checkpoint


class ResStage(BaseModule):
    """Run blocks in order and let a layer attention work on each of them.

    The blocks are children named ``0``, ``1``, ... as in torchvision, the attention is
    ``attention``; ``stage[i]``, ``len(stage)`` and iteration speak of the blocks.

    Args:
        blocks (list[nn.Module]): :class:`~mmdla.models.resnet.blocks.ResidualBlock` or the like.
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

    def __getitem__(self, index: int | slice) -> nn.Module:
        """Return block ``index``, or several blocks, without attention, as ``nn.Sequential``."""
        if isinstance(index, slice):
            return nn.Sequential(*list(self)[index])
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
        """Run block ``index`` and the attention: its output and the next state."""
        block, attention = self[index], self.attention
        if attention is None:
            return block(x), state
        shortcuts, options = [], {}
        if has_pre_hooks(block):  # which may change x before the block makes its shortcut of it
            args, options = (x,), dict(show_shortcut=shortcuts.append)
        else:
            args = x, block.shortcut(x)
            shortcuts.append(args[1])  # (B, C, H, W)
            fused = attention.run_fused(index, block, *args, state)
            if fused is not None:
                return fused
        if attention.overrides('recalibrate'):
            states = []

            def recalibrate(residual: Tensor) -> Tensor:
                residual, after = attention(index, residual, shortcuts[0], state, before_sum=True)
                states.append(after)
                return residual

            x = block(*args, recalibrate=recalibrate, **options)
            state = states[0]  # a checkpointed block calls again
            if not attention.overrides('attend'):
                return x, state
        else:
            x = block(*args, **options)
        return attention(index, x, shortcuts[0], state)
