"""The Dynamic Sharing Unit of DLA: the recurrent unit that the blocks of a stage share."""

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from .arguments import check_bool, check_choice, check_init_cfg, check_int

State = tuple[Tensor, Tensor]


@MODELS.register_module()
class DSU(BaseModule):
    r"""Dynamic Sharing Unit (DLA, IJCAI 2024).

    A light LSTM cell over channel descriptors. ``form='released'`` is the cell of the
    authors' code,

    .. math::
        [i\ f\ g] &= W_2^y\,\mathrm{ReLU}(W_1^y y) + W_2^h\,\mathrm{ReLU}(W_1^h h) \\
        c' &= \sigma(f) \odot c + \sigma(i) \odot \tanh(g) \\
        h' &= \sigma(c')

    and ``form='shared'`` squeezes once, over the concatenation of context and input, which is
    what the text of the paper appears to describe (not checkable against released numbers):
    :math:`[i\ f\ g] = W_2\,\mathrm{ReLU}(W_1 [\sigma(c), y])`.

    ``output_gate=True`` adds the gate ``o`` of the DIA-LSTM,
    :math:`h' = \sigma(o) \odot \sigma(c')`.

    Args:
        channels (int): Channels ``C`` of the descriptors.
        reduction (int): The squeeze has ``C // reduction`` channels. Default: 16.
        form (str): ``'released'`` or ``'shared'``. Default: ``'released'``.
        output_gate (bool): Add an output gate. Default: False.
        init_cfg (dict, optional): Initialization config of MMEngine.

    Raises:
        ValueError: ``reduction`` leaves no channel, or ``form`` is unknown.

    Example:
        >>> import torch
        >>> from mmengine.registry import MODELS
        >>> import mmdla
        >>> dsu = MODELS.build(dict(type='DSU', channels=256, reduction=16))
        >>> y = torch.rand(2, 256)
        >>> h, c = dsu(y)  # from the zero state
        >>> h, c = dsu(y, (h, c))  # one block further
        >>> tuple(h.shape)
        (2, 256)
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        form: str = 'released',
        output_gate: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(check_init_cfg(init_cfg) or None)
        self.channels = check_int('channels', channels)
        self.reduction = check_int('reduction', reduction)
        self.form = check_choice('form', form, ('released', 'shared'))
        self.output_gate = check_bool('output_gate', output_gate)
        squeezed = channels // reduction
        if squeezed < 1:
            raise ValueError(
                f'reduction must be in 1..{channels} for {channels} channels, got {reduction}'
            )
        gates = (4 if output_gate else 3) * channels
        if form == 'released':
            self.from_y = _squeeze(channels, squeezed, gates)
            self.from_h = _squeeze(channels, squeezed, gates)
        else:
            self.from_cy = _squeeze(2 * channels, squeezed, gates)

    def forward(self, y: Tensor, state: State | None = None) -> State:
        """One step.

        Args:
            y (Tensor): Descriptors, shape (..., C).
            state (tuple[Tensor, Tensor], optional): ``(h, c)``, each of a shape that broadcasts
                with ``y``. Default: the zero state.

        Returns:
            tuple[Tensor, Tensor]: The next ``(h, c)``, each of shape (..., C).
        """
        if y.shape[-1] != self.channels:
            raise ValueError(f'y must have {self.channels} channels last, got {tuple(y.shape)}')
        if state is None:
            zero = torch.zeros_like(y)
            state = (zero, zero)
        h, c = state
        gates = self.gates(y, h, c)  # (..., 3C or 4C)
        i, f, g = (self._gate(gates, n) for n in range(3))  # 3 x (..., C)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # (..., C)
        h = c.sigmoid()  # (..., C)
        if self.output_gate:
            h = self._gate(gates, 3).sigmoid() * h
        return h, c

    def _gate(self, gates: Tensor, n: int) -> Tensor:
        # not by split, whose sizes ONNX export by TorchScript infers wrongly
        return gates[..., n * self.channels : (n + 1) * self.channels]

    def gates(self, y: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """``[i f g]``, and ``o`` with an output gate, before their sigmoids and tanh: (..., 3C)."""
        if self.form == 'released':
            return self.from_y(y) + self.from_h(h)  # (..., 3C or 4C)
        context = c.sigmoid().expand_as(y)
        return self.from_cy(torch.cat((context, y), dim=-1))  # (..., 3C or 4C)


def check_context(context: str) -> str:
    """Whose context refreshes a sample: ``'sample'`` (its own) or ``'first'`` (the first one's)."""
    return check_choice('context', context, ('sample', 'first'))


def seen_context(state: State, context: str) -> State:
    """The state ``(h, c)`` that refreshes: every sample's (B, C) or the first one's (1, C)."""
    h, c = state
    return (h, c) if context == 'sample' else (h[:1], c[:1])


def _squeeze(in_channels: int, squeezed: int, out_channels: int) -> nn.Sequential:
    """``W2·ReLU(W1·x)``, both with bias."""
    return nn.Sequential(
        nn.Linear(in_channels, squeezed),
        nn.ReLU(inplace=True),
        nn.Linear(squeezed, out_channels),
    )
