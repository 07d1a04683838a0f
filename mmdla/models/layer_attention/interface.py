"""Define the interface of a layer attention to a ResNet stage."""

from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdla.checkpoint.attention import check_attention

from ..arguments import check_init_cfg, check_int
from ..layers import check_norm_cfg


class LayerAttention(BaseModule):
    """Base class of the layer attentions: one instance serves one stage.

    The stage calls the attention once for every block, in order, and hands the state that a call
    returns to the next one. The state is local to one forward pass: it starts as ``None`` in every
    stage and may be anything made of tensors. A subclass overrides :meth:`recalibrate` or
    :meth:`attend` and is registered with ``mmengine.registry.MODELS``; that is all.

    What more it can say: by :meth:`extra`, that the blocks read something besides their input; by
    ``crosses_stages``, that the state after a stage's last block is the first one of the next
    stage; by ``out_channels``, that the stage returns maps of other channels than its blocks. To
    one that crosses, the backbone gives those of these arguments that it takes:
    ``previous_channels`` (int, or None in the first stage), ``stride`` and ``last`` (whether no
    stage follows), and ``first_convs``, the first convolution of every block.

    Attributes:
        crosses_stages (bool): Whether the state goes on from stage to stage. Default: False.
        out_channels (int): Channels of what the last block's call returns. Default: ``C``.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        norm_cfg (dict): Norm layers of the backbone. Default: ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine.
    """

    crosses_stages = False

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        norm_cfg: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(check_init_cfg(init_cfg) or None)
        self.channels = self.out_channels = check_int('channels', channels)
        self.num_blocks = check_int('num_blocks', num_blocks)
        self.norm_cfg = check_norm_cfg(norm_cfg)

    def optional_parameters(self) -> tuple[str, ...]:
        """Return names that a state dict may have or lack, whatever this attention has.

        They are taken care of where they are loaded.
        """
        return ()

    def optional_parameter(self, name: str) -> Tensor:
        """Return a tensor of the shape and dtype of one of :meth:`optional_parameters`."""
        raise KeyError(name)

    def spare_parameters(self) -> tuple[str, ...]:
        """Return beginnings of names that a state dict may have and this attention has no use for.

        Another network of the same weights does, one with a classifier for instance.
        """
        return ()

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load as every module, but refuse another attention, or half of one, within a model."""
        if prefix:
            check_attention(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def start_as_identity(self) -> None:
        """Change the parameters so that the stage computes what it would without attention.

        It must still learn from there. What can do that overrides this method.

        Raises:
            ValueError: This attention cannot be the identity.
        """
        raise ValueError(
            f'zero_init_attention needs an attention that adds to the block, '
            f'{type(self).__name__} does not'
        )

    def forward(
        self, index: int, x: Tensor, shortcut: Tensor, state: Any, before_sum: bool = False
    ) -> tuple[Tensor, Any]:
        """Work on block ``index``: :meth:`attend`, or :meth:`recalibrate` before the sum.

        Args:
            index (int): Block of the stage, from 0.
            x (Tensor): Output of the block or, before the sum, its residual, shape (B, C, H, W).
            shortcut (Tensor): Shortcut of the block, shape (B, C, H, W).
            state (Any): What the previous call returned.
            before_sum (bool): Whether the shortcut is still to be added. Default: False.

        Returns:
            tuple[Tensor, Any]: The new ``x`` and the next state.
        """
        if before_sum:
            return self.recalibrate(index, x, state)
        return self.attend(index, x, shortcut, state)

    def extra(self, index: int, state: Any) -> Tensor | None:
        """Return what is added to the output of the first convolution of block ``index``.

        So a block reads other maps besides its input: a convolution of ``[x, h]`` is the sum of one
        of ``x``, the block's own, and one of ``h``, the attention's.

        Args:
            index (int): Block of the stage, from 0.
            state (Any): What the previous call returned.

        Returns:
            Tensor, optional: Shape of that output; ``None`` for nothing.
        """
        return None

    def recalibrate(self, index: int, residual: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Change the residual branch of block ``index`` before the shortcut is added.

        Args:
            index (int): Block of the stage, from 0.
            residual (Tensor): Shape (B, C, H, W).
            state (Any): What the previous call returned.

        Returns:
            tuple[Tensor, Any]: The residual and the next state.
        """
        return residual, state

    def attend(self, index: int, x: Tensor, shortcut: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Change the output of block ``index``, after its last ReLU.

        Args:
            index (int): Block of the stage, from 0.
            x (Tensor): Output ``x_l`` of the block, shape (B, C, H, W).
            shortcut (Tensor): Its shortcut ``s_l``, shape (B, C, H, W).
            state (Any): What the previous call returned.

        Returns:
            tuple[Tensor, Any]: The new output and the next state.
        """
        return x, state

    def overrides(self, name: str) -> bool:
        """Return whether a subclass of this class, or the object, has its own method ``name``."""
        return name in self.__dict__ or getattr(type(self), name) is not getattr(
            LayerAttention, name
        )

    def run_fused(
        self, index: int, block: nn.Module, x: Tensor, shortcut: Tensor, state: Any
    ) -> tuple[Tensor, Any] | None:
        """Run block ``index`` and :meth:`attend` as fused operations, if this attention has them.

        Args:
            index (int): Block of the stage, from 0.
            block (ResidualBlock): That block.
            x (Tensor): Its input, shape (B, C_in, H_in, W_in).
            shortcut (Tensor): Its shortcut, shape (B, C, H, W).
            state (Any): What the previous call returned.

        Returns:
            tuple[Tensor, Any], optional: As :meth:`attend`; ``None`` if the modules are to run.
        """
        return None

    def maps_summed(self, index: int) -> int:
        """Return how many maps (C, H, W) block ``index`` adds up with weights, to count operations.

        Counters see convolutions and matrix products only. What sums over blocks overrides this.
        """
        return 0
