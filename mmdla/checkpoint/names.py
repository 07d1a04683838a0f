"""Translate names of the host libraries, torchvision and timm to ours."""

import re
from collections.abc import Iterable

from torch import Tensor

from .errors import CheckpointError

State = dict[str, Tensor]


def select_backbone(state: State, prefix: str | None = None) -> tuple[State, list[str]]:
    """Return the backbone's part of a detector or classifier, and the names of the rest.

    Args:
        state (dict): A state dict.
        prefix (str, optional): Prefix of the backbone's names. Default: ``'backbone.'`` where
            such names are there, else none.
    """
    if prefix is None:
        prefix = 'backbone.' if any(name.startswith('backbone.') for name in state) else ''
    elif prefix and not prefix.endswith('.'):
        prefix += '.'
    backbone = {
        name.removeprefix(prefix): v for name, v in state.items() if name.startswith(prefix)
    }
    rest = [name for name in state if not name.startswith(prefix)]
    return backbone, rest


def renamed(entries: Iterable[tuple[str, Tensor]]) -> State:
    """Return a released state dict under new names.

    Raises:
        CheckpointError: Two of them are the same.
    """
    state: State = {}
    for name, value in entries:
        if name in state:
            raise CheckpointError(
                f'not a released model: two of its names mean the same weight, {name}'
            )
        state[name] = value
    return state


def to_our_names(state: State, avg_down: bool) -> State:
    """Translate the names of deep stems and of average-pooled shortcuts.

    - MMPretrain's deep stem: ``stem.1.conv`` to ``stem.3``, ``stem.1.bn`` to ``stem.4``
    - timm's deep stem: ``conv1.3`` to ``stem.3`` and its ``bn1`` to ``stem.7``
    - MMPretrain has no pooling layer where the stride is 1: ``downsample.0`` to ``downsample.1``
    """
    timm_stem = 'conv1.0.weight' in state
    shifted = avg_down and {
        name.removesuffix('.0.weight')
        for name, v in state.items()
        if name.endswith('downsample.0.weight') and v.ndim == 4
    }
    return {_translate(name, timm_stem, shifted or set()): v for name, v in state.items()}


def _translate(name: str, timm_stem: bool, shifted: set[str]) -> str:
    if match := re.fullmatch(r'stem\.(\d)\.(conv|bn)\.(.+)', name):
        return f'stem.{3 * int(match[1]) + (match[2] == "bn")}.{match[3]}'
    if timm_stem and name.startswith(('conv1.', 'bn1.')):
        return re.sub(r'^bn1\.', 'stem.7.', re.sub(r'^conv1\.', 'stem.', name))
    if match := re.fullmatch(r'(.+downsample)\.(\d)\.(.+)', name):
        if match[1] in shifted:
            return f'{match[1]}.{int(match[2]) + 1}.{match[3]}'
    return name
