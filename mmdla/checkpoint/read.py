"""Reading a state dict from a file without executing anything that is in it."""

import os
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from .errors import CheckpointError, some
from .remote import ways_out
from .restricted import load_file, restricted_loading

DEPTH = 5  # of nested dictionaries; in a damaged file one may contain itself
WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Tensors of a checkpoint by name, on the CPU, and what it says about itself.

    Files are read without running any code of theirs: objects other than tensors and plain
    containers become placeholders. Addresses with a scheme (``torchvision://…``, ``https://…``) are
    fetched by MMEngine and read in the same way. Checkpoints wrapped in ``state_dict`` or
    ``model`` are unwrapped and the ``module.`` of data-parallel training is removed.

    Args:
        path (str): File or address.

    Returns:
        tuple[dict[str, Tensor], dict]: The tensors, and ``meta`` (empty if there is none).

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds no tensors.
    """
    checkpoint = read_content(path)
    state = unwrap(checkpoint)
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f'{path}: no state dict in it, but {type(state).__name__}')
    tensors = only_tensors(state)
    if not tensors:
        raise CheckpointError(f'{path}: no tensors in it, its keys are {list(state)[:6]}')
    others = [str(k) for k in state if k not in tensors]
    if others:
        raise CheckpointError(f'{path}: entries that are no dense tensors: {some(others)}')
    meta = checkpoint.get('meta')
    return strip_module(tensors), meta if isinstance(meta, dict) else {}


def read_content(path: str | os.PathLike) -> Any:
    """Everything that is in a file or at an address, without running any code of it."""
    path = os.fspath(path)
    return _read_remote(path) if '://' in path else load_file(path)


def unwrap(checkpoint: Any) -> Any:
    """Return what is within the ``state_dict``, ``model``, … of a checkpoint."""
    for _ in range(DEPTH):
        if not isinstance(checkpoint, dict):
            break
        inner = (checkpoint[key] for key in WRAPPERS if isinstance(checkpoint.get(key), dict))
        found = next(inner, None)
        if found is None:
            break
        checkpoint = found
    return checkpoint


def only_tensors(state: dict) -> dict[str, Tensor]:
    """Return the entries that are dense tensors under a name."""
    return {k: v for k, v in state.items() if isinstance(k, str) and _is_plain(v)}


def strip_module(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the ``module.`` of data-parallel training, where all names have it."""
    while tensors and all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): v for name, v in tensors.items()}
    return tensors


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """Return the tensors that :func:`read_checkpoint` gives."""
    return read_checkpoint(path)[0]


def _is_plain(value: Any) -> bool:
    """Return a tensor of numbers in memory: not sparse, quantized or without storage."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_quantized or value.is_meta)
    )


def _read_remote(path: str) -> Any:
    try:
        with restricted_loading():
            return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f'{path}: could not be fetched ({error}). {ways_out(path)}'
        ) from error
