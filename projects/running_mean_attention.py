"""A layer attention of one's own, in one file.

Each block's output is scaled by a gate computed from the mean descriptor of all blocks so far:

    m_l = m_{l-1} + (GAP(x_l) - m_{l-1}) / l,    x_l <- x_l ⊙ 2σ(w ⊙ m_l + b)

Use it in any config, without changing the package (``PYTHONPATH=.`` lets the import find it):

    custom_imports = dict(
        imports=['mmdla', 'projects.running_mean_attention'], allow_failed_imports=False)
    model = dict(backbone=dict(
        type='DLAResNet', layer_attention=dict(type='RunningMeanAttention')))
"""

import torch
from mmengine.registry import MODELS
from torch import nn

from mmdla import LayerAttention


@MODELS.register_module()
class RunningMeanAttention(LayerAttention):
    """Gate every block by what the blocks so far have in common."""

    def __init__(self, channels, num_blocks, **kwargs):
        super().__init__(channels, num_blocks, **kwargs)
        self.weight = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def attend(self, index, x, shortcut, state):
        y = x.mean((2, 3))  # (B, C)
        mean = y if state is None else state + (y - state) / (index + 1)  # (B, C)
        gate = 2 * (self.weight * mean + self.bias).sigmoid()  # (B, C)
        return x * gate[..., None, None], mean
