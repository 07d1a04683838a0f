"""Share among the attentions of the MRLA family: heads for every block, and fused blocks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from ...ops import check_ops, kernels_run
from ...ops.backend import unsupported_reason
from ...ops.batch_norm import unsupported_reason as unsupported_layers
from .heads import Heads
from .interface import LayerAttention

# methods that the fused form stands for
STOOD_FOR = ('forward', 'attend', 'recalibrate', 'weigh', 'refresh')


class MultiHeadAttention(LayerAttention):
    """Layer attention with a query, a key and a value in every block.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        head_channels (int): Channels ``d`` of one head. Default: 32.
        kernel_size (int, optional): Odd width of the channel convolutions. Default: from ``C``.
        drop_path_rate (float): Drop path of the attention branch. Default: 0.
        ops (str): ``'reference'`` (the modules run), ``'fast'`` or ``'auto'``: fused operations
            where they can run and nobody observes the modules. Default: ``'auto'``.
        norm_cfg (dict, optional): Norm layers. Default: ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine.

    Raises:
        ValueError: ``head_channels`` does not divide ``channels``, ``kernel_size`` is even, or
            ``ops`` is unknown.
    """

    heads_type: type[Heads]
    recorder: Callable[[], AbstractContextManager] | None = None  # see show()

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

    def attend(self, index, x, shortcut, state):
        raise NotImplementedError

    def shared_modules(self) -> Iterator[nn.Module]:
        """Modules that all blocks share and that fused operations do not call as they are."""
        yield self

    def run_fused(self, index, block, x, shortcut, state):
        heads = self.blocks[index]
        if not (self.is_as_written() and heads.is_as_written() and block.is_as_written()):
            return None
        bypassed = (*self.shared_modules(), *heads.bypassed(), block, block.relu)
        layers = shortcut, heads.norm, heads.drop_path
        if not kernels_run(self.ops, shortcut, bypassed, lambda: unsupported_layers(*layers)):
            return None
        if not self.can_carry(shortcut, state):
            return None
        infers = not self.needs_gradients(x, shortcut) and not heads.norm.training
        leaves_norm = infers and block.can_leave_norm()
        residual = block.residual(x, last_norm=not leaves_norm)
        if unsupported_reason(residual, shortcut) is not None:  # what the convolutions returned
            residual = block.last_norm(residual) if leaves_norm else residual
            return self(index, block.finish(residual, shortcut), shortcut, state)
        if infers:
            last_norm = block.last_norm if leaves_norm else None
            overwritable = block.owns_residual(not leaves_norm)
            if not leaves_norm:  # which never is where the drop path has something to do
                residual = block.drop_path(residual)
                overwritable = overwritable and type(block.drop_path) is nn.Identity
            return self.infer(index, residual, shortcut, state, last_norm, overwritable)
        return self.train_step(index, block.drop_path(residual), shortcut, state)

    def show(self, index: int, y: Tensor, y_shortcut: Tensor | None, state: Any) -> None:
        """Run the vector part of a block once more for a recorder that hooks its modules.

        So that a recording changes nothing: what the block itself runs has no hooks.

        Args:
            index (int): Block of the stage, from 0.
            y (Tensor): ``GAP(x_l)``, shape (B, C).
            y_shortcut (Tensor, optional): ``GAP(s_l)``, shape (B, C), where it is used.
            state (Any): What the call before returned.
        """
        if self.recorder is not None:
            dtype = self.blocks[index].query.weight.dtype
            y, y_shortcut = (None if v is None else v.to(dtype) for v in (y, y_shortcut))
            with torch.no_grad(), self.recorder():
                self.run_vectors(index, y, y_shortcut, state)

    def run_vectors(self, index: int, y: Tensor, y_shortcut: Tensor | None, state: Any) -> None:
        """Call the modules that work on descriptors; arguments as :meth:`show`."""
        raise NotImplementedError

    def can_carry(self, shortcut: Tensor, state) -> bool:
        """Return whether fused operations can go on from the state of the blocks before."""
        return True

    def infer(self, index, residual, shortcut, state, last_norm, overwritable):
        """Finish block ``index`` without gradients, all norms with running statistics.

        Args:
            index (int): Block of the stage, from 0.
            residual (Tensor): Shape (B, C, H, W).
            shortcut (Tensor): Shape (B, C, H, W).
            state (Any): What the previous call returned.
            last_norm (BatchNorm2d, optional): Norm that the residual has yet to pass.
            overwritable (bool): Whether nobody else has the residual.

        Returns:
            tuple[Tensor, Any]: Output of the block and the next state.
        """
        raise NotImplementedError

    def train_step(self, index, residual, shortcut, state):
        """Finish block ``index`` with gradients; arguments and results as :meth:`infer`."""
        raise NotImplementedError

    def is_as_written(self) -> bool:
        """Return whether no subclass elsewhere changes one of ``STOOD_FOR``."""
        if any(name in self.__dict__ for name in STOOD_FOR):
            return False
        own = type(self)
        if own.__module__.startswith(__package__):
            return True
        known = next(cls for cls in own.__mro__ if cls.__module__.startswith(__package__))
        return all(getattr(own, name, None) is getattr(known, name, None) for name in STOOD_FOR)

    def needs_gradients(self, *inputs: Tensor) -> bool:
        """Return whether a backward pass may go through this attention."""
        if not torch.is_grad_enabled():
            return False
        return any(t.requires_grad for t in chain(inputs, self.parameters()))
