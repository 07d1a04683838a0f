"""The Dynamic Sharing Unit of DLA: the recurrent unit that a stage's blocks share.

"Strengthening Layer Interaction via Dynamic Layer Attention" (IJCAI 2024, arXiv:2406.13392);
official implementation: https://github.com/tunantu/Dynamic-Layer-Attention.
"""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from ..ops.batch_norm import tensor_of
from .arguments import check_bool, check_choice, check_init_cfg, check_int
from .register import register_yielding

State = tuple[Tensor, ...]  # (h, c), and what they give to the gates if it is known


@register_yielding
class DSU(BaseModule):
    r"""Dynamic Sharing Unit (DLA, IJCAI 2024).

    A light LSTM cell over channel descriptors. ``form='released'`` is the cell of the
    official implementation,

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
        if isinstance(y, Tensor) and y.shape[-1] != self.channels:  # a tracer's proxy is none
            raise ValueError(f'y must have {self.channels} channels last, got {tuple(y.shape)}')
        if state is None:
            zero = torch.zeros_like(y)  # (..., C)
            state = (zero, zero)
        if not (isinstance(state, (tuple, list)) and len(state) in (2, 3)):
            raise TypeError(f'state must be (h, c) or None, got {describe_state(state)}')
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

    def weights(self) -> list[Tensor]:
        """Return weights and biases of the released form: from y, then from h, two layers each."""
        layers = (m for m in self.layers() if type(m) is nn.Linear)
        return [tensor_of(layer, name) for layer in layers for name in ('weight', 'bias')]

    def parts(self) -> tuple[nn.Module, ...]:
        """Return the modules whose calls make a step."""
        return self, *self.children(), *self.layers()

    def layers(self) -> tuple[nn.Module, ...]:
        """Return what the unit consists of, in the order in which it runs."""
        return tuple(m for squeeze in self.children() for m in squeeze._modules.values())

    def is_plain(self) -> bool:
        """Return whether fused operations know this unit: the official one, with its own layers."""
        if type(self) is not DSU or self.form != 'released' or self.output_gate:
            return False
        return [type(m) for m in self.layers()] == 2 * [nn.Linear, nn.ReLU, nn.Linear]

    def of_input(self, y: Tensor) -> Tensor:
        """Return what a descriptor (..., C) gives to the gates; of many descriptors in one go."""
        return self.from_y(y) if self.form == 'released' else y  # (..., 3C or 4C), or (..., C)

    def of_context(self, h: Tensor, c: Tensor) -> Tensor:
        """Return what a state gives to the gates of every step that starts from it."""
        return self.from_h(h) if self.form == 'released' else c.sigmoid()

    def combine(self, of_input: Tensor, of_context: Tensor) -> Tensor:
        """``[i f g]``, and ``o`` with an output gate, before their sigmoids and tanh: (..., 3C)."""
        if self.form == 'released':
            return of_input + of_context
        shape = torch.broadcast_shapes(of_context.shape, of_input.shape)
        return self.from_cy(torch.cat((of_context.expand(shape), of_input.expand(shape)), -1))

    def gates(self, y: Tensor, h: Tensor, c: Tensor) -> Tensor:
        """Return the same from input and state."""
        return self.combine(self.of_input(y), self.of_context(h, c))


def describe_state(state: object) -> str:
    if isinstance(state, Tensor):
        return f'a tensor of shape {tuple(state.shape)}'
    return f'{state!r} ({type(state).__name__})'


def check_context(context: str) -> str:
    """Whose context refreshes a sample: ``'sample'`` (its own) or ``'first'`` (the first one's)."""
    return check_choice('context', context, ('sample', 'first'))


def seen_context(state: tuple[Tensor, ...], context: str) -> tuple[Tensor, ...]:
    """Return what of a state (B, ...) refreshes: every sample's or the first one's (1, ...)."""
    return state if context == 'sample' else tuple(part[:1] for part in state)


def _squeeze(in_channels: int, squeezed: int, out_channels: int) -> nn.Sequential:
    """``W2·ReLU(W1·x)``, both with bias."""
    return nn.Sequential(
        nn.Linear(in_channels, squeezed),
        nn.ReLU(),
        nn.Linear(squeezed, out_channels),
    )
