"""Reading PyTorch files without executing anything that is in them, and noticing damage."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import torch
from mmengine.logging import print_log

from .errors import CheckpointError, some
from .integrity import corrupt_record
from .safe_tensors import first_bytes, is_safetensors, load_safetensors, name_of
from .unpickle import restricted_pickle

ZIP = b'PK\x03\x04'
torch_load = torch.load  # PyTorch's own, also while ``restricted_loading`` replaces it


def load_file(path: str, plain_only: bool = False) -> Any:
    """Return what ``torch.save`` wrote, on the CPU, with placeholders for what is no plain data.

    With ``plain_only=True`` a file that has such objects is refused.

    The zip files of today's PyTorch carry a checksum for every tensor, which ``torch.load`` does
    not look at; here it is compared. Files of PyTorch before 1.6 have none.

    Files of safetensors are read by the package of that name.

    Raises:
        CheckpointError: The file is not there, not readable, damaged or of another kind, or
            not plain data alone where this is asked for.
    """
    if os.path.isdir(path):
        raise CheckpointError(f'{path}: a folder, not a checkpoint file')
    if not os.path.isfile(path):
        raise CheckpointError(f'{path}: no such checkpoint file')
    if not os.path.getsize(path):
        raise CheckpointError(f'{path}: the file is empty')
    try:
        if is_safetensors(path):
            return load_safetensors(path)
        _check_kind(path, path)
        module = restricted_pickle(os.path.getsize(path))
        content = torch_load(path, map_location='cpu', weights_only=False, pickle_module=module)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f'{path}: cannot be read, damaged or not a PyTorch checkpoint '
            f'({type(error).__name__}: {error})'
        ) from error
    if module.ignored:
        names = some(sorted(module.ignored))
        if plain_only:
            raise CheckpointError(
                f'{path}: not loaded, since it holds more than plain data: {names}'
            )
        print_log(f'{path}: not restored, no plain data: {names}', 'current', logging.WARNING)
    return content


@contextmanager
def restricted_loading() -> Iterator[None]:
    """Let everybody, MMEngine for one, read files as :func:`load_file` does.

    ``torch.load`` is replaced meanwhile. MMEngine's own calls of it execute what a file asks for:
    with PyTorch before 2.6 always, with later ones after a warning.

    It may be nested and used by several threads at once: ``torch.load`` stays replaced until the
    last of them has left, and is then what it was before the first one came.
    """
    with _lock:
        if torch.load is not _load_restricted:
            _swaps.append(_Swap(torch.load))
            torch.load = _load_restricted
        swap = _swaps[-1]
        swap.users += 1
    try:
        yield
    finally:
        with _lock:
            swap.users -= 1
            if not swap.users:
                _swaps.remove(swap)
                torch.load = swap.before


@dataclass(eq=False)
class _Swap:
    """One replacement of ``torch.load``: what was there, and how many still need it."""

    before: Callable
    users: int = 0


_lock = threading.Lock()
_swaps: list[_Swap] = []


def _load_restricted(f, map_location=None, *args, **kwargs) -> Any:
    """Stand in for ``torch.load``."""
    if isinstance(f, (str, os.PathLike)):
        return to_device(without_program(load_file(os.fspath(f))), map_location)
    if is_safetensors(f):
        return to_device(load_safetensors(f), map_location)
    _check_kind(f, name_of(f))
    kwargs.update(weights_only=False, pickle_module=restricted_pickle())
    return without_program(torch_load(f, map_location, **kwargs))


def without_program(checkpoint: Any) -> Any:
    """Take out the config of old MMCV, which ``Runner.resume`` would run as a Python program."""
    meta = checkpoint.get('meta') if isinstance(checkpoint, dict) else None
    if isinstance(meta, dict) and meta.pop('config', None) is not None:
        print_log('meta.config of the checkpoint is left out, not run', 'current')
    return checkpoint


def to_device(value: Any, map_location: Any) -> Any:
    """Move the tensors in a checkpoint to where ``map_location`` of ``torch.load`` says."""
    if map_location is None or callable(map_location) or isinstance(map_location, dict):
        return value  # on the CPU, from where it is copied to where it is needed
    if isinstance(value, torch.Tensor):
        return value.to(map_location)
    if isinstance(value, dict):
        for key in value:
            value[key] = to_device(value[key], map_location)
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple):
        return type(value)(to_device(v, map_location) for v in value)
    return value


def _check_kind(file: str | IO[bytes], name: str) -> None:
    """Refuse what ``torch.load`` would hand to other readers, and damage."""
    if not first_bytes(file).startswith(ZIP):
        return
    position = None if isinstance(file, str) else file.tell()
    # by the reader that torch.load uses, which decides as it does
    if 'constants.pkl' in torch._C.PyTorchFileReader(file).get_all_records():
        raise CheckpointError(f'{name}: a TorchScript program, not a checkpoint')
    if position is not None:
        file.seek(position)
    if record := corrupt_record(file):
        raise CheckpointError(f'{name}: damaged, the checksum of {record} in it is wrong')
    if position is not None:
        file.seek(position)
