"""An unpickler that builds tensors and plain data, and puts placeholders for everything else.

``torch.load(weights_only=True)`` refuses a file for a single object that it does not know, and
could be made to run code before PyTorch 2.6; this one reads the weights beside such objects.
"""

import collections
import importlib
import pickle
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim.scheduler.param_scheduler import OneCycleParamScheduler
from mmengine.utils import digit_version


class Placeholder:
    """Stands in for any object of a file that is neither tensor nor plain data."""

    def __init__(self, *args, **kwargs) -> None:
        pass

    def __call__(self, *args, **kwargs) -> 'Placeholder':
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


class RestrictedUnpickler(pickle.Unpickler):
    largest: int | None = None  # numbers of a tensor; damage may ask for terabytes
    ignored: set[str]  # what placeholders stand for
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
        return Placeholder

    def _attribute(self, owner: Any, name: str) -> Any:
        """``getattr`` for the only cases that files of MMEngine have.

        These are ``HistoryBuffer.mean`` and the like, and the functions of an :class:`Owner`.
        """
        if owner is self.history and name in STATISTICS:
            return getattr(HistoryBuffer, name)
        if isinstance(owner, Owner) and name in owner.functions:
            return owner.functions[name]
        self.ignored.add(f'getattr({getattr(owner, "__name__", type(owner).__name__)}, {name!r})')
        return Placeholder

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


def restricted_pickle(largest: int | None = None) -> types.SimpleNamespace:
    """Return what ``torch.load`` needs of a pickle module."""
    ignored: set[str] = set()
    history = type('History', (History,), dict(made=[]))
    own = dict(largest=largest, ignored=ignored, history=history)
    unpickler = type('RestrictedUnpickler', (RestrictedUnpickler,), own)
    return types.SimpleNamespace(
        ignored=ignored,
        Unpickler=unpickler,
        load=lambda file, **kwargs: unpickler(file, **kwargs).load(),
        UnpicklingError=pickle.UnpicklingError,
        __name__='mmdla.checkpoint.restricted',
    )
