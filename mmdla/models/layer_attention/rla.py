"""RLA: every block reads what a small recurrent map has gathered from the blocks before.

"Recurrence along Depth: Deep Convolutional Neural Networks with Recurrent Layer Aggregation"
(NeurIPS 2021, 2110.11852). Official implementation: https://github.com/fangyanwen1106/RLANet.
The code here is written anew from its equations.
"""

from collections.abc import Sequence

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

    The first convolution of :math:`[x, h]` is the sum of the block's own, which is a ResNet's, and
    of one of :math:`h` here, ``read``; the first block of the network, where h is zero, has none.

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
        first_convs (Sequence[nn.Module]): First convolution of every block; the backbone gives
            them. Without them the blocks read their input alone.
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
        first_convs: Sequence[nn.Module] = (),
        **kwargs,
    ) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        hidden = check_int('hidden_channels', hidden_channels)
        append_state = check_bool('append_state', append_state) and last
        self.out_channels = channels + hidden if append_state else channels
        build_norm(self.norm_cfg, hidden)  # a wrong one is refused even where none is used
        # nobody reads what the very last block would leave
        self.num_steps = num_blocks - (last and not append_state)
        # norms come before any Conv2d, so that no tool folds one into a convolution that several
        # blocks share
        self.norms = nn.ModuleList(
            build_norm(self.norm_cfg, hidden)[1] for _ in range(self.num_steps)
        )
        self.output_norm = build_norm(self.norm_cfg, hidden)[1] if append_state else None
        self.project, self.recurrent = None, None
        if self.num_steps:
            self.project = nn.Conv2d(channels, hidden, 1, bias=False)
            self.recurrent = nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)
        self.read = nn.ModuleDict(
            {
                str(index): reading_conv(hidden, conv)
                for index, conv in enumerate(first_convs)
                if index or previous_channels is not None
            }
        )
        # odd maps are rounded up, as by the strided convolution of the block
        self.pool: nn.Module = nn.Identity()
        if stride != 1:
            self.pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
        self.eca: nn.ModuleList | None = None
        if check_bool('eca', eca):
            self.eca = nn.ModuleList(ChannelConv(channels, None) for _ in range(num_blocks))
        self.output = nn.Identity()  # called last: a tracer takes the last step for the result

    def start_as_identity(self):
        """Let the blocks not read ``h`` at first."""
        if self.eca is not None:
            raise ValueError(
                'zero_init_attention needs eca=False: ECA scales the residuals, '
                'which is never the identity'
            )
        if self.output_norm is not None:
            raise ValueError(
                'zero_init_attention needs append_state=False: '
                'what is appended is not in the output of a ResNet'
            )
        for conv in self.read.values():
            nn.init.zeros_(conv.weight)

    def spare_parameters(self):
        # what leads from the last block's output to the classifier
        return (
            ()
            if self.num_steps == self.num_blocks
            else ('output_norm.', f'norms.{self.num_steps}.')
        )

    def overrides(self, name):
        return super().overrides(name) and (name != 'recalibrate' or self.eca is not None)

    def extra(self, index, state):
        if state is None or str(index) not in self.read:
            return None  # h is zero
        return self.read[str(index)](state)  # (B, C_mid, H', W')

    def recalibrate(self, index, residual, state):
        scale = self.eca[index](pool(residual)).sigmoid()  # (B, C)
        return residual * scale[..., None, None], state

    def attend(self, index, x, shortcut, state):
        if index >= self.num_steps:
            return self.output(x), None
        h = self.project(x)  # (B, hidden_channels, H, W)
        if state is not None:
            h = h + (self.pool(state) if index == 0 else state)
        h = self.recurrent(self.norms[index](h).tanh())  # (B, hidden_channels, H, W)
        if self.output_norm is not None and index == self.num_blocks - 1:
            x = torch.cat((x, self.output_norm(h).relu()), 1)  # (B, C + hidden_channels, H, W)
        return self.output(x), h


def reading_conv(channels: int, like: nn.Module) -> nn.Conv2d:
    """Return a convolution of ``h`` whose output has the shape of that of another convolution."""
    return nn.Conv2d(
        channels,
        like.out_channels,
        like.kernel_size,
        stride=like.stride,
        padding=like.padding,
        dilation=like.dilation,
        bias=False,
    )
