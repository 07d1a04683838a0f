"""RLA: every block reads what a small recurrent map has gathered from the blocks before.

"Recurrence along Depth: Deep Convolutional Neural Networks with Recurrent Layer Aggregation"
(NeurIPS 2021, 2110.11852). Official implementation: https://github.com/fangyanwen1106/RLANet.
The code here is written anew from its equations.
"""

import torch
from mmengine.registry import MODELS
from torch import nn

from ..arguments import check_bool, check_int
from ..layers import build_norm
from .channel import ChannelConv
from .heads import pool
from .interface import LayerAttention


@MODELS.register_module()
class RLA(LayerAttention):
    r"""RLA: a recurrent map :math:`h` that the first convolution of every block reads.

    .. math::
        x_l &= \mathrm{ReLU}(F_l([x_{l-1}, h_{l-1}]) + s_l) \\
        h_l &= U(\tanh(\mathrm{BN}_l(P(h_{l-1}) + Y(x_l))))

    :math:`U` is a 3x3 and :math:`Y` a 1x1 convolution, which the blocks of a stage share; :math:`P`
    pools where a block strides. :math:`h` is zero before the first block of the network and goes on
    from stage to stage. With ``eca``, :math:`F_l` ends in an :class:`ECA`.

    The official code computes :math:`Y` of the block's output, as here: what reads there like the
    residual has been summed in place by then.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        hidden_channels (int): Channels of ``h``. Default: 32.
        eca (bool): Recalibrate the residuals, with the kernel sizes of :class:`ECA`.
            Default: False.
        append_state (bool): Let the last stage return :math:`[x, \mathrm{ReLU}(\mathrm{BN}(h))]`,
            ``C + hidden_channels`` channels, which the classifier of the release reads.
            Default: False.
        previous_channels (int, optional): Channels of the stage before; the backbone gives it.
        stride (int): Stride of the stage; the backbone gives it.
        last (bool): Whether no stage follows; the backbone gives it.
        **kwargs: As :class:`LayerAttention`.
    """

    crosses_stages = True

    def __init__(
        self,
        channels: int,
        num_blocks: int,
        hidden_channels: int = 32,
        eca: bool = False,
        append_state: bool = False,
        previous_channels: int | None = None,
        stride: int = 1,
        last: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        self.hidden_channels = hidden = check_int('hidden_channels', hidden_channels)
        self.append_state = last and check_bool('append_state', append_state)
        self.out_channels = channels + hidden if self.append_state else channels
        # nobody reads what the very last block would leave
        self.num_steps = num_blocks - (last and not self.append_state)
        self.norms = nn.ModuleList(
            build_norm(self.norm_cfg, hidden)[1] for _ in range(self.num_steps)
        )
        self.project, self.recurrent = None, None
        if self.num_steps:
            self.project = nn.Conv2d(channels, hidden, 1, bias=False)
            self.recurrent = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        # odd maps are rounded up, as by the strided convolution of the block
        self.pool = nn.Identity()
        if stride != 1:
            self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.output_norm = build_norm(self.norm_cfg, hidden)[1] if self.append_state else None
        self.eca = None
        if check_bool('eca', eca):
            self.eca = nn.ModuleList(ChannelConv(channels, None) for _ in range(num_blocks))

    @classmethod
    def extra_channels(cls, hidden_channels: int = 32, **arguments) -> int:
        return check_int('hidden_channels', hidden_channels)

    def start_as_identity(self):
        """Nothing to do but in the blocks, whose convolutions do not read ``h`` at first."""
        if self.eca is not None:
            raise ValueError(
                'zero_init_attention needs eca=False: ECA scales the residuals, '
                'which is never the identity'
            )
        if self.append_state:
            raise ValueError(
                'zero_init_attention needs append_state=False: '
                'what is appended is not in the output of a ResNet'
            )

    def overrides(self, name):
        return super().overrides(name) and (name != 'recalibrate' or self.eca is not None)

    def inputs(self, index, x, state):
        if state is None:
            state = x.new_zeros(x.shape[0], self.hidden_channels, x.shape[2], x.shape[3])
        return torch.cat((x, state), 1)  # (B, C_in + hidden_channels, H_in, W_in)

    def recalibrate(self, index, residual, state):
        scale = self.eca[index](pool(residual)).sigmoid()  # (B, C)
        return residual * scale[..., None, None], state

    def attend(self, index, x, shortcut, state):
        if index >= self.num_steps:
            return x, None
        h = self.project(x)  # (B, hidden_channels, H, W)
        if state is not None:
            h = h + (self.pool(state) if index == 0 else state)
        h = self.recurrent(self.norms[index](h).tanh())
        if self.append_state and index == self.num_blocks - 1:
            return torch.cat((x, self.output_norm(h).relu()), 1), None
        return x, h
