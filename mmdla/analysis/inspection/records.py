"""Records of a stage, as tensors and as the few numbers that figures and files show.

``B`` images, ``L`` blocks, ``C`` channels; every tensor is detached and on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

PER_STAGE = ('lambdas',)  # parameters; everything else is there for every image


@dataclass(frozen=True)
class StageRecord:
    """Record of the layer attention of one stage. What an attention does not have is ``None``.

    Args:
        stage (str): Name of the stage in the backbone, e.g. ``'layer3'``.
        kind (str): Type of the attention, e.g. ``'DLALight'``.
        weights (Tensor, optional): Softmax weights of the full attentions, shape (B, heads, L, L);
            row ``l``, column ``m`` is the weight of block ``m`` in block ``l``, 0 for ``m > l``.
        kept (Tensor, optional): What the refreshes of DLA-B have multiplied the value of block
            ``m`` with when block ``l`` sees it, shape (B, L, L, C), 0 for ``m > l``.
        gates (Tensor, optional): ``a`` of the light attentions, shape (B, L, heads).
        lambdas (Tensor, optional): Their ``lambda``, shape (L, C).
        refresh (Tensor, optional): ``d`` of DLA-L, shape (B, L, C).
        input_gate (Tensor, optional): ``sigmoid(i)`` of the recurrent unit, shape (B, L, C).
        forget_gate (Tensor, optional): ``sigmoid(f)``, shape (B, L, C).
        candidate (Tensor, optional): ``tanh(g)``, shape (B, L, C).
        output_gate (Tensor, optional): ``sigmoid(o)`` of DIA-LSTM, shape (B, L, C).
        hidden (Tensor, optional): ``h``, shape (B, L, C).
        context (Tensor, optional): ``c``, shape (B, L, C).
    """

    stage: str
    kind: str
    weights: Tensor | None = None
    kept: Tensor | None = None
    gates: Tensor | None = None
    lambdas: Tensor | None = None
    refresh: Tensor | None = None
    input_gate: Tensor | None = None
    forget_gate: Tensor | None = None
    candidate: Tensor | None = None
    output_gate: Tensor | None = None
    hidden: Tensor | None = None
    context: Tensor | None = None

    @property
    def quantities(self) -> dict[str, Tensor]:
        """What there is, by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    @property
    def num_blocks(self) -> int:
        """``L``."""
        name, value = next(iter(self.quantities.items()))
        return value.shape[0 if name in PER_STAGE else 2 if name == 'weights' else 1]

    def matrix(self, name: str) -> Tensor:
        """``weights`` or ``kept``, averaged over all but the two blocks: (L, L)."""
        return getattr(self, name).mean((0, 1) if name == 'weights' else (0, 3))

    def per_block(self, name: str) -> Tensor:
        """Any other quantity: the values of every block, shape (L, N)."""
        value = getattr(self, name)
        return value if name in PER_STAGE else value.transpose(0, 1).flatten(1)

    def summary(self) -> dict[str, dict | list]:
        """Plain numbers: the matrices, and mean and quantiles per block of everything else."""
        result: dict[str, dict | list] = {}
        for name in self.quantities:
            if name in ('weights', 'kept'):
                result[name] = _rounded(self.matrix(name))
            else:
                values = self.per_block(name)  # (L, N)
                result[name] = dict(
                    mean=_rounded(values.mean(1)),
                    quantiles={
                        f'{int(100 * q)}%': _rounded(row)
                        for q, row in zip(QUANTILES, quantiles(values), strict=True)
                    },
                )
        return result


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def quantiles(values: Tensor) -> Tensor:
    """``QUANTILES`` of every block: (L, N) to (5, L)."""
    # not torch.quantile, which refuses more than 16 million values
    return torch.from_numpy(np.quantile(values.numpy(), QUANTILES, axis=1))


def join_records(passes: Sequence[Sequence[StageRecord]]) -> list[StageRecord]:
    """One record per stage from those of several forward passes, their images one after another.

    Raises:
        ValueError: There is no pass.
    """
    if not passes:
        raise ValueError('no forward pass was recorded')
    return [_join(records) for records in zip(*passes, strict=True)]


def _join(records: Sequence[StageRecord]) -> StageRecord:
    first = records[0]
    joined = {
        name: value
        if name in PER_STAGE
        else torch.cat([getattr(record, name) for record in records])
        for name, value in first.quantities.items()
    }
    return StageRecord(first.stage, first.kind, **joined)


def _rounded(values: Tensor) -> list:
    return [_rounded(row) if row.ndim else round(row.item(), 6) for row in values]
