"""Containers of blocks that give every block together with the layer attention behind it.

A host walks through its blocks with ``for block in blocks: x = block(x, ...)``. Here such a walk
meets steps in place of the blocks, which share a state that is made for this walk.
"""

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from ..layer_attention import LayerAttention
from ..resnet.recompute import checkpoint
from .tokens import Grid, TokenAttention, to_map, to_tokens


def attend(
    attention: LayerAttention, index: int, x: Tensor, shortcut: Tensor, state: Any
) -> tuple[Tensor, Any]:
    """Call a layer attention on maps (B, C, H, W)."""
    return attention.attend(index, x, shortcut, state)


def attend_tokens(
    attention: LayerAttention | TokenAttention,
    index: int,
    x: Tensor,
    shortcut: Tensor,
    state: Any,
    grid: Grid,
    extra_tokens: int = 0,
) -> tuple[Tensor, Any]:
    """Call a layer attention on tokens (B, E + H * W, C), of which ``E`` are no patches."""
    if isinstance(attention, TokenAttention):
        return attention(index, x, shortcut, state, grid, extra_tokens)
    maps = [to_map(tokens[:, extra_tokens:], grid) for tokens in (x, shortcut)]
    out, state = attend(attention, index, *maps, state)  # (B, C, H, W)
    # the layout stays that of x: sums and products over another one may be rounded otherwise
    channels_last = maps[0].is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    out = to_tokens(out.contiguous(memory_format=layout))  # (B, H * W, C)
    return torch.cat((x[:, :extra_tokens], out), 1) if extra_tokens else out, state


class Step:
    """A block and the layer attention behind it, within one walk; otherwise the block.

    Args:
        block (nn.Module): The host's block.
        attention (nn.Module): The layer attention of the stage.
        index (int): Which of the attended blocks this is.
        memory (list): One entry, the state that the steps of a walk hand on.
        attend (Callable): :func:`attend`, or :func:`attend_tokens` with what it takes at the end.
        with_cp (bool): Recompute block and attention in the backward pass.
    """

    def __init__(self, block, attention, index, memory, attend, with_cp) -> None:
        self.block, self.attention, self.index = block, attention, index
        self.memory, self.attend, self.with_cp = memory, attend, with_cp

    def __getattr__(self, name: str) -> Any:
        if name == 'block':  # before __init__, while it is copied
            raise AttributeError(name)
        return getattr(self.block, name)

    def __call__(self, x: Tensor, *args: Any) -> Tensor:
        if self.with_cp and torch.is_grad_enabled():
            both = nn.ModuleList((self.block, self.attention))
            x, self.memory[0] = checkpoint(both, self.run, x, self.memory[0], *args)
        else:
            x, self.memory[0] = self.run(x, self.memory[0], *args)
        return x

    def run(self, x: Tensor, state: Any, *args: Any) -> tuple[Tensor, Any]:
        out = self.block(x, *args)
        return self.attend(self.attention, self.index, out, x, state, *args)


class Attending:
    """What is mixed into a container of blocks; length, indices and names stay those of blocks.

    Attributes:
        attended (tuple[int, ...]): Blocks with an attention behind them.
        attentions (tuple[nn.Module]): The attention of the stage. In a tuple, for it is a child of
            the backbone and must have that one name.
        tokens (bool): Whether the blocks return tokens, and are called with their grid.
        with_cp (bool): Recompute block and attention in the backward pass.
    """

    def steps(self, attend: Callable) -> list[nn.Module | Step]:
        """The blocks of one walk."""
        memory = [None]
        steps = list(self._modules.values())
        for n, i in enumerate(self.attended):
            steps[i] = Step(steps[i], self.attentions[0], n, memory, attend, self.with_cp)
        return steps

    def __reduce_ex__(self, protocol: int) -> tuple:
        return restore, (type(self).__bases__,), self.__dict__


class AttendingList(Attending):
    """A ``ModuleList``, which its owner iterates over."""

    def __iter__(self) -> Iterator[nn.Module | Step]:
        return iter(self.steps(attend_tokens if self.tokens else attend))


class AttendingSequential(Attending):
    """A ``Sequential``, which is called."""

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps(attend):
            x = step(x)
        return x


def let_attend(
    blocks: nn.Module, attention: nn.Module, attended: tuple[int, ...], tokens: bool, with_cp: bool
) -> None:
    """Make a host's container of blocks an attending one, in place."""
    mixin = AttendingSequential if isinstance(blocks, nn.Sequential) else AttendingList
    blocks.__class__ = subclass(mixin, type(blocks))
    blocks.attentions, blocks.attended = (attention,), attended
    blocks.tokens, blocks.with_cp = tokens, with_cp


@cache
def subclass(*bases: type) -> type:
    """The class of the host, the last of ``bases``, with the mixins before it."""
    host = bases[-1]
    return type(host.__name__, bases, dict(__module__=__name__, __doc__=host.__doc__, host=host))


def restore(bases: tuple[type, ...]) -> nn.Module:
    """For copies and pickles, which do not know the classes made here."""
    cls = subclass(*bases)
    return object.__new__(cls)
