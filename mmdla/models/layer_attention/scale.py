"""A start as the identity for branches whose last step is a ReLU: a scale that begins at zero.

Zero norm weights, which serve MRLA-L and DLA-L, would never leave zero there: the gradient of the
ReLU behind them is zero.
"""

import warnings

import torch
from torch import nn

from .interface import LayerAttention


class ScaledHeads(nn.Module):
    """One block's part, with a depthwise ``value``, whose output may have a scale (C, 1, 1).

    The scale is there only for the start as the identity.
    """

    value: nn.Conv2d

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.scale: nn.Parameter | None = None

    def start_with_zero_scale(self) -> None:
        if self.scale is None:
            weight = self.value.weight  # (C, 1, 3, 3)
            self.scale = nn.Parameter(weight.new_empty(len(weight), 1, 1))
        nn.init.zeros_(self.scale)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args) -> None:
        """Load weights that were trained with a scale, or without one, which is a scale of 1.

        A scale that the config does not ask for is made here; an optimizer that was made before
        does not know it.
        """
        name = f'{prefix}scale'
        if name in state_dict and self.scale is None:
            self.start_with_zero_scale()
            self.scale.requires_grad_(self.value.weight.requires_grad)
            warnings.warn(
                'The weights of the attention were trained with zero_init_attention=True, which '
                'the config does not have: their scale is loaded and used. To train it further, '
                'set zero_init_attention=True',
                stacklevel=2,
            )
        elif self.scale is not None and name not in state_dict:
            if any(key.startswith(prefix) for key in state_dict):
                state_dict[name] = torch.ones_like(self.scale)
        super()._load_from_state_dict(state_dict, prefix, *args)


class ScaledAttention(LayerAttention):
    """A layer attention whose ``blocks`` are :class:`ScaledHeads`."""

    blocks: nn.ModuleList

    def start_as_identity(self):
        for heads in self.blocks:
            heads.start_with_zero_scale()

    def optional_parameters(self):
        return tuple(f'blocks.{i}.scale' for i in range(self.num_blocks))

    def optional_parameter(self, name):
        return self.get_submodule(name.rpartition('.')[0]).value.weight[:, :, :1, 0]  # (C, 1, 1)
