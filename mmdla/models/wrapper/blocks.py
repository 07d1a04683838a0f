"""Run the blocks of a host, each with the layer attention behind it.

A host runs its blocks with ``for block in self.blocks: x = block(x, ...)``. That loop is the
host's own here too, but ``self`` is a :class:`Pass`, which has steps in place of the blocks. They
share a state that is made for this pass.
"""

from collections.abc import Callable, Iterable
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
    return attention(index, x, shortcut, state)


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
    """A block and the layer attention behind it, within one forward pass.

    Args:
        block (nn.Module): The host's block.
        attention (nn.Module): The layer attention of the stage.
        index (int): Which of the attended blocks this is.
        memory (list): One entry, the state that the steps of a stage hand on.
        attend (Callable): :func:`attend`, or :func:`attend_tokens`, which takes what the block
            takes beside the tokens.
        with_cp (bool): Recompute block and attention in the backward pass.
    """

    def __init__(self, block, attention, index, memory, attend, with_cp) -> None:
        self.block, self.attention, self.index = block, attention, index
        self.memory, self.attend, self.with_cp = memory, attend, with_cp

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
    """State that the blocks of a stage share; no module, as the backbone has the attention.

    Args:
        attention (nn.Module): The layer attention of the stage.
        attended (tuple[int, ...]): Blocks of the stage that it works behind.
        with_cp (bool): Recompute block and attention in the backward pass.
    """

    def __init__(self, attention: nn.Module, attended: tuple[int, ...], with_cp: bool) -> None:
        self.attention, self.attended, self.with_cp = attention, attended, with_cp

    def steps(self, blocks: Iterable[nn.Module], attend: Callable) -> list[nn.Module | Step]:
        """Return what one forward pass calls in place of the blocks."""
        steps, memory = list(blocks), [None]
        for n, i in enumerate(self.attended):
            steps[i] = Step(steps[i], self.attention, n, memory, attend, self.with_cp)
        return steps


class Pass:
    """One forward pass of a module: the module, but for the attributes that are given.

    A host's ``forward`` is called on it, so that nothing of a pass is kept in the module.
    """

    def __init__(self, module: nn.Module, **attributes: Any) -> None:
        self.module = module
        for name, value in attributes.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


class Woven:
    """Mixin for the class of a host's module; ``host`` is that class.

    ``host_forward`` is its ``forward`` as a function, which compilers follow on a :class:`Pass`.
    """

    host: type[nn.Module]
    host_forward: Callable[..., Any]
    attending: Attending

    def __reduce_ex__(self, protocol: int) -> tuple:
        return _restore, (type(self).__bases__,), self.__dict__


class WovenSequential(Woven):
    """A ``Sequential`` of blocks that return maps."""

    def forward(self, x: Tensor) -> Tensor:
        for step in self.attending.steps(self, attend):
            x = step(x)
        return x


class WovenStage(Woven):
    """A stage with ``blocks`` that return tokens and are called with their grid (Swin)."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        steps = self.attending.steps(self.blocks, attend_tokens)
        return self.host_forward(Pass(self, blocks=steps), *args, **kwargs)


@cache
def subclass(*bases: type) -> type:
    """Return the class of the host, the last of ``bases``, with the mixins before it."""
    host = bases[-1]
    names = dict(__module__=__name__, __doc__=host.__doc__, __new__=_new, host=host)
    names['host_forward'] = staticmethod(host.forward)
    return type(host.__name__, bases, names)


def _new(cls: type, *_: Any, **__: Any) -> nn.Module:
    """Make an empty instance, as copies, pickles and ``torch.compile`` expect of a module."""
    return object.__new__(cls)


def _restore(bases: tuple[type, ...]) -> nn.Module:
    """For copies and pickles, which do not know the classes made here."""
    return _new(subclass(*bases))
