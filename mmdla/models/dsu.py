"""The Dynamic Sharing Unit of DLA: the recurrent unit that the blocks of a stage share."""

import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from .arguments import check_bool, check_choice, check_init_cfg, check_int

State = tuple[Tensor, ...]  # (h, c), and what they give to the gates if it is known


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
        >>>         >>> import mmdla
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

    def forward(
        self,
        y: Tensor,
        state: State | None = None,
        of_input: Tensor | None = None,
    ) -> State:
        """One step.

        Args:
            y (Tensor): Descriptors, shape (..., C).
            state (tuple[Tensor, ...], optional): ``(h, c)``, each of a shape that broadcasts
                with ``y``, and ``self.of_context(h, c)`` if it is known. Default: the zero state.
            of_input (Tensor, optional): ``self.of_input(y)``, if it is known.

        Returns:
            tuple[Tensor, Tensor]: The next ``(h, c)``, each of shape (..., C).
        """
        if y.shape[-1] != self.channels:
            raise ValueError(f'y must have {self.channels} channels last, got {tuple(y.shape)}')
        if state is None:
            zero = y.new_zeros(self.channels)
            state = (zero, zero)
        h, c, *known = state
        of_context = known[0] if known else self.of_context(h, c)
        of_input = self.of_input(y) if of_input is None else of_input
        gates = self.combine(of_input, of_context)  # (..., 3C or 4C)
        i, f, g = (self._gate(gates, n) for n in range(3))  # 3 x (..., C)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()  # (..., C)
        h = c.sigmoid()  # (..., C)
        if self.output_gate:
            h = self._gate(gates, 3).sigmoid() * h
        return h, c

    def _gate(self, gates: Tensor, n: int) -> Tensor:
        # not by split, whose sizes ONNX export by TorchScript infers wrongly
        return gates[..., n * self.channels : (n + 1) * self.channels]

    def of_input(self, y: Tensor) -> Tensor:
        """What a descriptor (..., C) gives to the gates; of many descriptors in one go."""
        if self.form == 'released':
            return self.from_y(y)  # (..., 3C or 4C)
        squeeze = self.from_cy[0]
        return F.linear(y, squeeze.weight[:, self.channels :], squeeze.bias)  # (..., C // r)

    def of_context(self, h: Tensor, c: Tensor) -> Tensor:
        """What a state gives to the gates of every step that starts from it."""
        if self.form == 'released':
            return self.from_h(h)  # (..., 3C or 4C)
        return F.linear(c.sigmoid(), self.from_cy[0].weight[:, : self.channels])  # (..., C // r)

    def combine(self, of_input: Tensor, of_context: Tensor) -> Tensor:
        """``[i f g]``, and ``o`` with an output gate, before their sigmoids and tanh: (..., 3C)."""
        total = of_input + of_context
        return total if self.form == 'released' else self.from_cy[1:](total)

    def gates(self, y: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """The same from input and state."""
        return self.combine(self.of_input(y), self.of_context(h, c))


def check_context(context: str) -> str:
    """Whose context refreshes a sample: ``'sample'`` (its own) or ``'first'`` (the first one's)."""
    return check_choice('context', context, ('sample', 'first'))


def seen_context(state: tuple[Tensor, ...], context: str) -> tuple[Tensor, ...]:
    """The parts of a state (B, ...) that refresh: every sample's or the first one's (1, ...)."""
    return state if context == 'sample' else tuple(part[:1] for part in state)


def _squeeze(in_channels: int, squeezed: int, out_channels: int) -> nn.Sequential:
    """``W2·ReLU(W1·x)``, both with bias."""
    return nn.Sequential(
        nn.Linear(in_channels, squeezed),
        nn.ReLU(inplace=True),
        nn.Linear(squeezed, out_channels),
    )
