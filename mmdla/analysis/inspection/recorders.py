"""Observe each family of layer attentions: hooks on its submodules, during one pass.

A query, a key and the calls of the recurrent unit are enough to compute everything else again,
whichever path (reference, compiled kernels) made the maps.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ...models.dsu import DSU
from ...models.layer_attention import DIALSTM, LayerAttention, MRLABase, MRLALight
from ...models.layer_attention.multi_head import MultiHeadAttention
from .records import StageRecord


class Recorder:
    """Collect what the submodules of the attention of one stage compute, pass by pass.

    Args:
        stage (str): Name of the stage.
        attention (LayerAttention): Its attention.
    """

    def __init__(self, stage: str, attention: LayerAttention) -> None:
        self.stage = stage
        self.attention = attention
        self.start()

    def start(self) -> None:
        """Forget the pass before."""
        self.queries: list[Tensor] = []  # of the blocks so far, each (B, C)
        self.keys: list[Tensor] = []
        self.steps: list[dict[str, Tensor]] = []  # of the recurrent unit, in the order of calls

    def attach(self) -> Iterator[Callable[[], None]]:
        """Set what observes, during a pass; give what takes it away again."""
        if isinstance(self.attention, MultiHeadAttention):  # which shows its modules apart
            self.attention.recorder = self.watching
            yield lambda: self.attention.__dict__.pop('recorder', None)
        else:
            yield from (handle.remove for handle in self._hooks())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Have hooks on the modules of the attention."""
        with ExitStack() as stack:
            for handle in self._hooks():
                stack.callback(handle.remove)
            yield

    def _hooks(self) -> Iterator[RemovableHandle]:
        for heads in getattr(self.attention, 'blocks', ()):
            for module, row in ((heads.query, self.add_query), (heads.key, self.add_key)):
                yield module.register_forward_hook(row)
        if getattr(self.attention, 'dsu', None) is not None:
            yield self.attention.dsu.register_forward_hook(self.add_step)

    def add_query(self, _module: nn.Module, _args: tuple, out: Tensor) -> None:
        self.queries.append(out.detach().squeeze(1))  # (B, C)

    def add_key(self, _module: nn.Module, _args: tuple, out: Tensor) -> None:
        self.keys.append(out.detach().squeeze(1))  # (B, C)

    @torch.no_grad()
    def add_step(self, dsu: DSU, args: tuple, out: tuple[Tensor, Tensor]) -> None:
        y, state = args[0], args[1] if len(args) > 1 else None
        h, c = [torch.zeros_like(y)] * 2 if state is None else state[:2]
        i, f, g, *o = dsu.gates(y, h, c).split(dsu.channels, dim=-1)  # 3 or 4 x (..., C)
        step = dict(input_gate=i.sigmoid(), forget_gate=f.sigmoid(), candidate=g.tanh())
        if o:
            step['output_gate'] = o[0].sigmoid()
        self.steps.append({**step, 'hidden': out[0].detach(), 'context': out[1].detach()})

    @torch.no_grad()
    def finish(self) -> StageRecord:
        """Return the record of the pass."""
        found = {name: _plain(value) for name, value in self.read().items()}
        return StageRecord(self.stage, type(self.attention).__name__, **found)

    def read(self) -> dict[str, Tensor]:
        """Return the quantities of :class:`StageRecord` from what the hooks have collected."""
        raise NotImplementedError

    def unit(self, steps: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Gates and context of the recurrent unit in these of its calls, each (B, L, C)."""
        if not steps:
            return {}
        return {name: torch.stack([step[name] for step in steps], 1) for name in steps[0]}


class LightRecorder(Recorder):
    """MRLA-L and DLA-L, whose unit is called twice a block: for the context, for the refresh."""

    attentions = MRLALight

    def read(self):
        blocks = self.attention.blocks
        rows = [
            heads.similarity(q, k).sigmoid()  # (B, heads)
            for heads, q, k in zip(blocks, self.queries, self.keys, strict=True)
        ]
        found = dict(gates=torch.stack(rows, 1))  # (B, L, heads)
        found['lambdas'] = torch.stack([heads.lambda_.flatten() for heads in blocks])  # (L, C)
        if self.steps:
            found['refresh'] = torch.stack([step['hidden'] for step in self.steps[1::2]], 1)
        return {**found, **self.unit(self.steps[::2])}


class BaseRecorder(Recorder):
    """MRLA-B and DLA-B, whose unit is called once in the first block, then twice in every one."""

    attentions = MRLABase

    def read(self):
        contexts, refreshes = self.steps[:1] + self.steps[1::2], self.steps[2::2]
        blocks = len(self.keys)
        weights, kept = [], []
        for index, (heads, q, k) in enumerate(
            zip(self.attention.blocks, self.queries, self.keys, strict=True)
        ):
            k = k.unsqueeze(1)  # (B, 1, C)
            if index == 0:
                keys, gates = k, torch.ones_like(k)
            else:
                if refreshes:
                    fresh = (
                        self.attention.gain * refreshes[index - 1]['hidden']
                    )  # (B, 2m, C): keys, values
                    keys, gates = (
                        t * d for t, d in zip((keys, gates), fresh.chunk(2, 1), strict=True)
                    )
                keys = torch.cat((keys, k), 1)  # (B, m, C)
                gates = torch.cat((gates, torch.ones_like(k)), 1)  # (B, m, C)
            row = heads.similarity(q.unsqueeze(1), keys).softmax(1)  # (B, m, heads)
            later = (0, 0, 0, blocks - index - 1)
            weights.append(nn.functional.pad(row, later).transpose(1, 2))  # (B, heads, L)
            kept.append(nn.functional.pad(gates, later))  # (B, L, C)
        found = dict(weights=torch.stack(weights, 2))  # (B, heads, L, L)
        if self.steps:
            found['kept'] = torch.stack(kept, 1)  # (B, L, L, C)
        return {**found, **self.unit(contexts)}


class DIARecorder(Recorder):
    """DIA-LSTM: a unit alone."""

    attentions = DIALSTM

    def read(self):
        return self.unit(self.steps)


RECORDERS: tuple[type[Recorder], ...] = (LightRecorder, BaseRecorder, DIARecorder)


def recorder_for(stage: str, attention: LayerAttention | None) -> Recorder | None:
    """Return what observes this attention, or ``None`` if it has nothing to show."""
    for recorder in RECORDERS:
        if isinstance(attention, recorder.attentions):
            return recorder(stage, attention)
    return None


def _plain(value: Tensor) -> Tensor:
    """On the CPU, in single precision at least."""
    value = value.detach().cpu()
    return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value.clone()
