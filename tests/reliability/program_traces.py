"""What a run of a program leaves, and how two of them differ."""

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Trace:
    """What a run of a program left: named tensors, and how often things were called."""

    tensors: dict[str, Tensor | None] = field(default_factory=dict)
    calls: Counter = field(default_factory=Counter)
    changed: list[str] = field(default_factory=list)  # captured maps that somebody overwrote
    error: str | None = None
    second_order: bool = False  # a gradient that is zero there may be None as well


def compare(fused: Trace, plain: Trace, tolerance: float = 1e-9) -> list[str]:
    """Return what differs between two runs of a program, a line for each."""
    if plain.error or fused.error:
        # a program that PyTorch refuses is refused both ways
        same = bool(plain.error) and bool(fused.error)
        return [] if same else [f'error: fused {fused.error}, plain {plain.error}']
    lines = [f'overwritten: {name}' for name in (*fused.changed, *plain.changed)]
    for name in sorted(fused.calls.keys() | plain.calls.keys()):
        if fused.calls[name] != plain.calls[name]:
            lines.append(f'calls: {name}: fused {fused.calls[name]}, plain {plain.calls[name]}')
    floor = max((t.abs().max().item() for t in plain.tensors.values() if _counts(t)), default=0.0)
    for name in fused.tensors.keys() | plain.tensors.keys():
        got, right = fused.tensors.get(name), plain.tensors.get(name)
        if (got is None) != (right is None):
            there = right if got is None else got
            if plain.second_order and not there.any():
                continue
            lines.append(f'{name}: {"no" if got is None else "a"} tensor, unlike the modules')
        elif right is not None and got.shape != right.shape:
            lines.append(f'{name}: shape {tuple(got.shape)}, not {tuple(right.shape)}')
        elif _counts(right):
            off = (got - right).abs().max().item()
            # gradients that are zero but for rounding have no digits of their own
            if not off <= tolerance * right.abs().max().item() + 1e-13 * floor:
                lines.append(f'{name}: off by {off:.1e} of {right.abs().max().item():.1e}')
    return sorted(lines)


def _counts(t: Tensor | None) -> bool:
    return t is not None and t.numel() > 0 and t.is_floating_point()
