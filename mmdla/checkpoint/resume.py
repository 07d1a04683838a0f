"""Loading the whole state of a training run without executing anything that is in the file."""

import codecs
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from .errors import CheckpointError
from .inert import torch_load
from .whole import find_damage

SCHEME = 'weights_only://'
PARTS = ('meta', 'state_dict', 'message_hub')  # what Runner.resume cannot do without


@CheckpointLoader.register_scheme(prefixes=SCHEME)
def load_from_weights_only(path: str, map_location: Any = None) -> dict:
    """Load a local checkpoint to resume from; ``path`` begins with ``weights_only://``.

    MMEngine unpickles such files, or, since PyTorch 2.6, tries ``weights_only=True`` with a list
    of allowed names that has ``getattr`` in it, and on failure unpickles nevertheless. Here only
    tensors, NumPy arrays, plain containers and the history of MMEngine's log are accepted.

    Args:
        path (str): Address of the file.
        map_location (str): As in :func:`torch.load`.

    Returns:
        dict: The checkpoint.

    Raises:
        CheckpointError: The file is damaged, holds other objects, or no training state.
    """
    path = os.path.expanduser(path.removeprefix(SCHEME))
    if damage := find_damage(path):
        raise CheckpointError(f'{path}: {damage}')
    try:
        with _allowed(*_log_globals(), *_numpy_globals()):
            checkpoint = torch_load(path, map_location=map_location, weights_only=True)
    except Exception as error:
        raise CheckpointError(f'{path}: cannot be loaded safely ({_first_line(error)})') from error
    missing = [p for p in PARTS if not isinstance(checkpoint, dict) or p not in checkpoint]
    if missing or not {'epoch', 'iter'} <= set(checkpoint['meta']):
        raise CheckpointError(
            f'{path}: no training can go on from it, it has no {", ".join(missing or ["epoch"])}'
            ' (to start a new training from its weights: load_from)'
        )
    return checkpoint


@contextmanager
def _allowed(*extra: Callable) -> Iterator[None]:
    """Names that ``weights_only=True`` accepts besides its own."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*extra])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _numpy_globals() -> list[Callable]:
    array = np.zeros(1)
    dtypes = [type(np.dtype(kind)) for kind in (bool, 'i4', 'i8', 'u1', 'f4', 'f8', 'U1')]
    functions = [array.__reduce__()[0], np.float64(0).__reduce__()[0], codecs.encode]  # of bytes
    return [np.ndarray, np.dtype, *functions, *dtypes]


def _log_globals() -> list[Callable]:
    """The history of the log, and the methods that it names by ``getattr``."""

    def method(owner: Any, name: str) -> Callable:
        found = vars(HistoryBuffer).get(name)
        if owner is not HistoryBuffer or name.startswith('_') or not inspect.isfunction(found):
            raise ValueError(f'getattr of {name!r} is not allowed')
        return found

    # PyTorch compares the names of allowed functions with those in the file
    method.__module__, method.__name__, method.__qualname__ = 'builtins', 'getattr', 'getattr'
    return [HistoryBuffer, method]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = next((line for line in lines if 'GLOBAL' in line or 'allowed' in line), *lines[:1])
    return f'{type(error).__name__}: {text[:300]}'
