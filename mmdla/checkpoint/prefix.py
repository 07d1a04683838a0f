"""Where in a checkpoint the ResNet is: under which prefix, in which of its dictionaries."""

import os
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from .errors import CheckpointError, some
from .names import select_backbone
from .read import DEPTH, only_tensors, read_content, strip_module, unwrap

State = dict[str, Tensor]
SIGN = 'layer1.0.conv1.weight'  # every ResNet has it


def read_backbone(path: str | os.PathLike, prefix: str | None = None) -> tuple[State, list[str]]:
    """Tensors of the backbone in a checkpoint, and the names of everything else in it.

    Args:
        path (str): File or address.
        prefix (str, optional): Prefix of the backbone's names, as they stand in the file
            (``'module.encoder_q'``), without the ``module.`` of data-parallel training, or with the
            names of the dictionaries in the file before it (``'teacher'``). Default:
            ``'backbone.'`` where such names are there, else none.

    Raises:
        CheckpointError: The file cannot be read, or has no tensors under the prefix.
    """
    content = read_content(path)
    state = unwrap(content)
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f'{path}: no state dict in it, but {type(state).__name__}')
    tensors = only_tensors(state)
    everything = dict(_flat(content))
    if not (tensors or everything):
        raise CheckpointError(f'{path}: no tensors in it, its keys are {list(state)[:6]}')
    odd = [str(k) for k, v in state.items() if k not in tensors and _is_odd(k, v)]
    if odd:
        raise CheckpointError(f'{path}: entries that are no dense tensors: {some(odd)}')
    others = [key for key in state if key not in tensors]
    if prefix is None:
        found, rest = select_backbone(strip_module(tensors))
        if SIGN not in found and (prefixes := find_prefixes(tensors or everything)):
            raise CheckpointError(f'{path}: {_hint(prefixes)}')
        return found, rest + others
    for names in (tensors, strip_module(tensors), everything):
        found, rest = select_backbone(names, prefix)
        if found:
            more = []
            if SIGN not in found:  # a model within, 'teacher' for one
                found, more = select_backbone(strip_module(found))
            return found, rest + more + (others if names is not everything else [])
    prefixes = find_prefixes(tensors) or find_prefixes(everything)
    first = sorted({f'{name.split(".")[0]}.' for name in tensors or everything})
    there = _hint(prefixes) if prefixes else f'its names begin with {some(first)}'
    raise CheckpointError(f'{path}: no names that start with {prefix!r}; {there}')


def _is_odd(name: Any, value: Any) -> bool:
    """Not a number or text beside the weights, as self-supervised training saves."""
    plain = value is None or isinstance(value, (str, int, float, list, tuple, dict))
    return not (plain and isinstance(name, str))


def find_prefixes(names: State) -> list[str]:
    """Return prefixes under which there is a ResNet."""
    ends = [name.removesuffix(SIGN) for name in names if name.endswith(f'.{SIGN}')]
    return [end.removesuffix('.') for end in ends]


def _hint(prefixes: list[str]) -> str:
    quoted = [repr(prefix) for prefix in prefixes]
    return f'ResNets are in it under these prefixes (init_cfg=dict(prefix=...)): {some(quoted)}'


def _flat(value: Any, prefix: str = '', depth: int = DEPTH) -> Iterator[tuple[str, Tensor]]:
    """Yield all dense tensors in nested dictionaries, their names joined by dots."""
    if isinstance(value, dict) and depth:
        for key, inner in value.items():
            if isinstance(key, str):
                yield from _flat(inner, f'{prefix}{key}.', depth - 1)
        yield from ((prefix + name, v) for name, v in only_tensors(value).items())
