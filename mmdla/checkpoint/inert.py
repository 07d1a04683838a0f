"""Reading PyTorch files without executing anything that is in them, and noticing damage."""

import collections
import importlib
import logging
import os
import pickle
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, print_log
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.utils import digit_version

from .errors import CheckpointError, some
from .whole import wrong_sum

ZIP = b'PK\x03\x04'
torch_load = torch.load  # PyTorch's own, also while ``inert_loading`` replaces it


def load_file(path: str, whole: bool = False) -> Any:
    """What ``torch.save`` wrote, on the CPU; objects that are no plain data become inert.

    With ``whole=True`` a file that has such objects is refused.

    The zip files of today's PyTorch carry a checksum for every tensor, which ``torch.load`` does
    not look at; here it is compared. Files of PyTorch before 1.6 have none.

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
        _check_kind(path, path)
        module = _inert_pickle(os.path.getsize(path))
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
        if whole:
            raise CheckpointError(
                f'{path}: not loaded, since it holds more than plain data: {names}'
            )
        print_log(f'{path}: not restored, no plain data: {names}', 'current', logging.WARNING)
    return content


@contextmanager
def inert_loading() -> Iterator[None]:
    """Let everybody, MMEngine for one, read files as :func:`load_file` does.

    ``torch.load`` is replaced meanwhile. MMEngine's own calls of it execute what a file asks for:
    with PyTorch before 2.6 always, with later ones after a warning.

    It may be nested and used by several threads at once: ``torch.load`` stays replaced until the
    last of them has left, and is then what it was before the first one came.
    """
    with _lock:
        if torch.load is not _load_inert:
            _swaps.append(_Swap(torch.load))
            torch.load = _load_inert
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


def _load_inert(f, map_location=None, *args, **kwargs) -> Any:
    """Stand in for ``torch.load``."""
    if isinstance(f, (str, os.PathLike)):
        return to_device(without_program(load_file(os.fspath(f))), map_location)
    _check_kind(f, getattr(f, 'name', 'a file object'))
    kwargs.update(weights_only=False, pickle_module=_inert_pickle())
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
    start = _first_bytes(file)
    if len(start) > 8 and start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < 1 << 27:
        raise CheckpointError(
            f'{name}: a safetensors file; write it as a PyTorch checkpoint first: '
            'torch.save(safetensors.torch.load_file(source), target)'
        )
    if start.startswith(ZIP):
        # by the reader that torch.load uses, which decides as it does
        if 'constants.pkl' in torch._C.PyTorchFileReader(file).get_all_records():
            raise CheckpointError(f'{name}: a TorchScript program, not a checkpoint')
        if not isinstance(file, str):
            file.seek(0)
        if record := wrong_sum(file):
            raise CheckpointError(f'{name}: damaged, the checksum of {record} in it is wrong')
        if not isinstance(file, str):
            file.seek(0)


def _first_bytes(file: str | IO[bytes]) -> bytes:
    if isinstance(file, str):
        with open(file, 'rb') as opened:
            return opened.read(16)
    place = file.tell()
    start = file.read(16)
    file.seek(place)
    return start


class Inert:
    """Stands in for any object of a file that is neither tensor nor plain data."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __call__(self, *args, **kwargs) -> 'Inert':
        return self

    def __setstate__(self, state) -> None:
        pass

    def __setitem__(self, key, value) -> None:
        pass

    def append(self, item) -> None:
        pass

    def extend(self, items) -> None:
        pass

    def add(self, item) -> None:
        pass


GETATTR = {('builtins', 'getattr'), ('__builtin__', 'getattr')}
PLAIN = (set, frozenset, complex, range, slice)
_SAFE = {
    ('collections', 'OrderedDict'): collections.OrderedDict,
    ('collections', 'Counter'): collections.Counter,  # milestones of schedules
    ('collections', 'deque'): collections.deque,
    ('collections', 'defaultdict'): lambda *args: collections.defaultdict(None),
    **{(home, kind.__name__): kind for home in ('builtins', '__builtin__') for kind in PLAIN},
    ('torch', 'Size'): torch.Size,
    ('torch', 'device'): torch.device,
    **{('torch', str(t)[6:]): t for t in vars(torch).values() if isinstance(t, torch.dtype)},
    ('torch._utils', '_rebuild_tensor'): torch._utils._rebuild_tensor,
    ('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
    ('torch._utils', '_rebuild_parameter'): torch._utils._rebuild_parameter,
    ('mmengine.config.config', 'ConfigDict'): ConfigDict,  # in dataset_meta, from metainfo=dict()
}


class Owner(NamedTuple):
    """Stands in for a class of which a file needs static functions, and nothing else."""

    functions: Mapping[str, Callable]  # by name; not to be changed, neither by a file


class History(HistoryBuffer):
    """A ``HistoryBuffer`` until the whole file is read.

    MMEngine's changes what all buffers of the process calculate to what a file says.
    """

    made: list['History']  # in one file

    def __new__(cls, *args, **kwargs) -> 'History':
        history = super().__new__(cls)
        cls.made.append(history)
        return history

    def __setstate__(self, state: dict) -> None:
        state = {k: v for k, v in state.items() if k != 'statistics_methods'}
        self.__dict__.update(state)


HISTORY = 'mmengine.logging.history_buffer', 'HistoryBuffer'
# what MMEngine's message hub is made of, which a resumed run needs
STATISTICS = ('min', 'max', 'current', 'mean')
# arithmetic on three numbers, which the state of the scheduler refers to
_OWNERS = {
    ('mmengine.optim.scheduler.param_scheduler', 'OneCycleParamScheduler'): Owner(
        types.MappingProxyType(
            dict(
                _annealing_cos=OneCycleParamScheduler._annealing_cos,
                _annealing_linear=OneCycleParamScheduler._annealing_linear,
            )
        )
    )
}
_NUMPY_CORE = 'numpy._core' if digit_version(np.__version__) >= (2,) else 'numpy.core'
_SAFE_BY_NAME = {
    ('numpy', 'dtype'),
    ('numpy', 'ndarray'),
    *(
        (f'numpy.{core}.multiarray', name)
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ),
    ('_codecs', 'encode'),
}


class _InertUnpickler(pickle.Unpickler):
    largest: int | None = None  # numbers of a tensor; damage may ask for terabytes
    ignored: set[str]  # what was made inert
    history: type[History]

    def load(self) -> Any:
        content = super().load()
        for history in self.history.made:
            history.__class__ = HistoryBuffer
        return content

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in GETATTR:
            return self._attribute
        if (module, name) == HISTORY:
            return self.history
        if (module, name) in _OWNERS:
            return _OWNERS[module, name]
        owner, _, function = name.rpartition('.')  # as protocol 4 writes it
        if (module, owner) == HISTORY or (module, owner) in _OWNERS:
            return self._attribute(self.find_class(module, owner), function)
        if (module, name) in _SAFE:
            return _SAFE[module, name]
        if (module, name) in _SAFE_BY_NAME:
            return _import(module, name)
        if module == 'torch' and name.endswith('Storage') and name.isidentifier():
            return getattr(torch, name)
        self.ignored.add(f'{module}.{name}')
        return Inert

    def _attribute(self, owner: Any, name: str) -> Any:
        """``getattr`` for the only cases that files of MMEngine have.

        These are ``HistoryBuffer.mean`` and the like, and the functions of an :class:`Owner`.
        """
        if owner is self.history and name in STATISTICS:
            return getattr(HistoryBuffer, name)
        if isinstance(owner, Owner) and name in owner.functions:
            return owner.functions[name]
        self.ignored.add(f'getattr({getattr(owner, "__name__", type(owner).__name__)}, {name!r})')
        return Inert

    def __setattr__(self, name: str, value: Any) -> None:
        if name == 'persistent_load':  # what torch.load makes tensors with
            value = self._limited(value)
        super().__setattr__(name, value)

    def _limited(self, load: Callable) -> Callable:
        def load_tensor(saved_id: Any) -> Any:
            numbers = [n for n in saved_id if isinstance(n, int)]
            if self.largest is not None and numbers and max(numbers) > self.largest:
                raise pickle.UnpicklingError(f'{max(numbers)} numbers cannot be in such a file')
            return load(saved_id)

        return load_tensor


def _import(module: str, name: str) -> Any:
    if module.startswith('numpy.'):  # core was renamed in NumPy 2; 1.26 has a husk of the new name
        return getattr(importlib.import_module(f'{_NUMPY_CORE}.multiarray'), name)
    return getattr(importlib.import_module(module), name)


def _inert_pickle(largest: int | None = None) -> types.SimpleNamespace:
    """What ``torch.load`` needs of a pickle module."""
    ignored: set[str] = set()
    history = type('History', (History,), dict(made=[]))
    own = dict(largest=largest, ignored=ignored, history=history)
    unpickler = type('InertUnpickler', (_InertUnpickler,), own)
    return types.SimpleNamespace(
        ignored=ignored,
        Unpickler=unpickler,
        load=lambda file, **kwargs: unpickler(file, **kwargs).load(),
        UnpicklingError=pickle.UnpicklingError,
        __name__='mmdla.checkpoint.inert',
    )
