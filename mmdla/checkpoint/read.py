"""Reading a state dict from a file without executing anything that is in it."""

import collections
import os
import pickle
import types
from typing import Any

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from .errors import CheckpointError

WRAPPERS = ('state_dict', 'model', 'model_state_dict', 'net')


def read_checkpoint(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict]:
    """Tensors of a checkpoint by name, on the CPU, and what it says about itself.

    Local files are read without running any code of theirs: objects other than tensors and plain
    containers become inert. Addresses with a scheme (``torchvision://…``, ``https://…``) are
    fetched by MMEngine. Checkpoints wrapped in ``state_dict`` or ``model`` are unwrapped and the
    ``module.`` of data-parallel training is removed.

    Args:
        path (str): File or address.

    Returns:
        tuple[dict[str, Tensor], dict]: The tensors, and ``meta`` (empty if there is none).

    Raises:
        CheckpointError: There is no such file, it is damaged, or it holds no tensors.
    """
    path = os.fspath(path)
    checkpoint = _read_remote(path) if '://' in path else _read_local(path)
    state = checkpoint
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f'{path}: no state dict in it, but {type(state).__name__}')
    tensors = {str(k): v for k, v in state.items() if isinstance(v, Tensor)}
    if not tensors:
        raise CheckpointError(f'{path}: no tensors in it, its keys are {list(state)[:6]}')
    others = [str(k) for k in state if str(k) not in tensors]
    if others:
        raise CheckpointError(f'{path}: entries that are no tensors: {others[:6]}')
    while all(name.startswith('module.') for name in tensors):
        tensors = {name.removeprefix('module.'): v for name, v in tensors.items()}
    meta = checkpoint.get('meta')
    return tensors, meta if isinstance(meta, dict) else {}


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors that :func:`read_checkpoint` gives."""
    return read_checkpoint(path)[0]


def _read_remote(path: str) -> Any:
    try:
        return CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except Exception as error:
        raise CheckpointError(f'{path}: could not be fetched ({error})') from error


def _read_local(path: str) -> Any:
    if not os.path.isfile(path):
        raise CheckpointError(f'{path}: no such checkpoint file')
    try:
        return torch.load(
            path, map_location='cpu', weights_only=False, pickle_module=_inert_pickle()
        )
    except Exception as error:
        raise CheckpointError(
            f'{path}: cannot be read, truncated or not a PyTorch checkpoint '
            f'({type(error).__name__}: {error})'
        ) from error


class _Inert:
    """Stands in for any object of a checkpoint that is neither tensor nor container."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __call__(self, *args, **kwargs) -> '_Inert':
        return self

    def __setstate__(self, state) -> None:
        pass

    def __setitem__(self, key, value) -> None:
        pass

    def append(self, item) -> None:
        pass

    def extend(self, items) -> None:
        pass


_SAFE = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('collections', 'defaultdict'): lambda *args: collections.defaultdict(None),
    ('builtins', 'set'): set,
    ('torch', 'Size'): torch.Size,
    ('torch._utils', '_rebuild_tensor'): torch._utils._rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch._utils', '_rebuild_parameter'): torch._utils._rebuild_parameter,
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _SAFE:
            return _SAFE[module, name]
        if module == 'torch' and name.endswith('Storage'):
            return getattr(torch, name)
        return _Inert


def _inert_pickle() -> types.SimpleNamespace:
    """What ``torch.load`` needs of a pickle module."""
    return types.SimpleNamespace(
        Unpickler=_InertUnpickler,
        load=lambda file, **kwargs: _InertUnpickler(file, **kwargs).load(),
        UnpicklingError=pickle.UnpicklingError,
        __name__='mmdla.checkpoint.read',
    )
