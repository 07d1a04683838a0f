"""A ResNet stage: its blocks and the one layer attention that serves them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...ops.choice import is_observed
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
            if attention is not None and attention.overrides('extra'):
                block.expect_extra()
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

    @property
    def crosses(self) -> bool:
        """Whether the attention hands its state on to the next stage."""
        return self.attention is not None and self.attention.crosses_stages

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        of_block = self[-1].out_channels
        return of_block if self.attention is None else self.attention.out_channels

    def start_as_identity(self) -> None:
        """Let the attention start as the identity.

        Raises:
            ValueError: There is none, or it cannot.
        """
        if self.attention is None:
            raise ValueError('zero_init_attention needs a layer_attention, got None')
        self.attention.start_as_identity()

    def forward(
        self, x: Tensor, state: Any = None, hand_on: Callable[[Any], object] | None = None
    ) -> Tensor:
        """(B, C_in, H, W) to (B, C, H/stride, W/stride).

        Args:
            x (Tensor): Shape (B, C_in, H, W).
            state (Any): What the stage before handed on, if the attention crosses stages.
            hand_on (Callable, optional): Is given the state after the last block.
        """
        for index in range(self.num_blocks):
            if self.with_cp and torch.is_grad_enabled():
                x, state = checkpoint(self, self._step, index, x, state)
            else:
                x, state = self._step(index, x, state)
        if hand_on is not None:
            hand_on(state)
        return x

    def _step(self, index: int, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Run block ``index`` and the attention: its output and the next state."""
        block, attention = self[index], self.attention
        if attention is None:
            return block(x), state
        shortcuts: list[Tensor] = []
        # hooks on a block may change its x, or the gradient of x, and so the shortcut
        known = None if is_observed(block) else block.shortcut(x)  # (B, C, H, W)

        def shortcut_of(x: Tensor) -> Tensor:
            shortcuts.append(block.shortcut(x) if known is None else known)
            return shortcuts[-1]

        # whether there are hooks or not, they see the same arguments
        options: dict[str, Any] = dict(shortcut_of=shortcut_of)
        extra = attention.extra(index, state)
        if extra is not None:
            options['extra'] = extra
        elif known is not None:
            fused = attention.run_fused(index, block, x, known, state)
            if fused is not None:
                return fused
        if attention.overrides('recalibrate'):
            states = []

            def recalibrate(residual: Tensor) -> Tensor:
                residual, after = attention(index, residual, shortcuts[0], state, before_sum=True)
                states.append(after)
                return residual

            x = block(x, recalibrate=recalibrate, **options)
            state = states[0]  # a checkpointed block calls again
            if not attention.overrides('attend'):
                return x, state
        else:
            x = block(x, **options)
        return attention(index, x, shortcuts[0], state)
