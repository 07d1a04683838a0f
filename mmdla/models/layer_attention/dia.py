"""DIA-LSTM: one recurrent unit recalibrates the residuals of all blocks of a stage.

"DIANet: Dense-and-Implicit Attention Network" (AAAI 2020, arXiv:1905.10671);
official implementation: https://github.com/gbup-group/DIANet.
"""

from mmengine.registry import MODELS

from ..dsu import DSU
from ..layers import build_norm
from .heads import pool
from .interface import LayerAttention


@MODELS.register_module()
class DIALSTM(LayerAttention):
    r"""DIA-LSTM: the residual :math:`r_l` of each block is scaled by the hidden state.

    .. math::
        (h_l, c_l) = \mathrm{LSTM}(\mathrm{GAP}(r_l), h_{l-1}, c_{l-1}), \qquad
        x_l = \mathrm{ReLU}(h_l \odot r_l + s_l)

    The cell is the :class:`DSU` with an output gate.

    Args:
        channels (int): Channels ``C`` of the stage.
        num_blocks (int): Blocks of the stage.
        reduction (int): Reduction of the cell. Default: 4, as published.
        **kwargs: As :class:`LayerAttention`.
    """

    def __init__(self, channels: int, num_blocks: int, reduction: int = 4, **kwargs) -> None:
        super().__init__(channels, num_blocks, **kwargs)
        build_norm(self.norm_cfg, self.channels)  # not used, but a wrong one is refused
        self.dsu = DSU(channels, reduction, output_gate=True)

    def recalibrate(self, index, residual, state):
        state = self.dsu(pool(residual), state)  # 2 x (B, C)
        return residual * state[0][..., None, None], state
