"""Reading a state dict from a file without executing anything that is in it."""

import os
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from .errors import CheckpointError, some
from .inert import inert_loading, load_file
from .remote import ways_out

WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Tensors of a checkpoint by name, on the CPU, and what it says about itself.

    Files are read without running any code of theirs: objects other than tensors and plain
    containers become inert. Addresses with a scheme (``torchvision://…``, ``https://…``) are
    fetched by MMEngine and read in the same way. Checkpoints wrapped in ``state_dict`` or
    ``model`` are unwrapped and the ``module.`` of data-parallel training is removed.

    Args:
        path (str): File or address.

    Returns:
        tuple[dict[str, Tensor], dict]: The tensors, and ``meta`` (empty if there is none).

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds no tensors.
    """
    path = os.fspath(path)
    checkpoint = _read_remote(path) if '://' in path else load_file(path)
    state = checkpoint
    while isinstance(state, dict):
        inner = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), None)
        if inner is None:
            break
        state = inner
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f'{path}: no state dict in it, but {type(state).__name__}')
    tensors = {k: v for k, v in state.items() if isinstance(k, str) and _is_plain(v)}
    if not tensors:
        raise CheckpointError(f'{path}: no tensors in it, its keys are {list(state)[:6]}')
    others = [str(k) for k in state if k not in tensors]
    if others:
        raise CheckpointError(f'{path}: entries that are no dense tensors: {some(others)}')
    while all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): v for name, v in tensors.items()}
    meta = checkpoint.get('meta')
    return tensors, meta if isinstance(meta, dict) else {}


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors that :func:`read_checkpoint` gives."""
    return read_checkpoint(path)[0]


def _is_plain(value: Any) -> bool:
    """A tensor of numbers in memory: not sparse, quantized or without storage."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta)
    )


def _read_remote(path: str) -> Any:
    try:
        with inert_loading():
            return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f'{path}: could not be fetched ({error}). {ways_out(path)}'
        ) from error
