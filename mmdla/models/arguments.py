"""Checks of constructor arguments, with one form of message for all of them."""

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from mmengine.registry import WEIGHT_INITIALIZERS


def describe(value: Any) -> str:
    return f'{value!r} ({type(value).__name__})'


def check_int(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` if it is an integer in ``[minimum, maximum]``.

    Raises:
        TypeError: ``value`` is no integer (``bool`` counts as none).
        ValueError: ``value`` is out of range.
    """
    allowed = f'an integer >= {minimum}' if maximum is None else f'{minimum}..{maximum}'
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f'{name} must be {allowed}, got {describe(value)}')
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f'{name} must be {allowed}, got {value}')
    return int(value)


def check_bool(name: str, value: Any) -> bool:
    """Return ``value`` if it is ``True`` or ``False``, else raise ``TypeError``."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f'{name} must be True or False, got {describe(value)}')
    return bool(value)


def check_rate(name: str, value: Any) -> float:
    """Return ``value`` if it is a probability in ``[0, 1)``."""
    if not is_number(value):
        raise TypeError(f'{name} must be a number in [0, 1), got {describe(value)}')
    if not 0 <= value < 1:
        raise ValueError(f'{name} must be a number in [0, 1), got {value}')
    return float(value)


def check_choice(name: str, value: Any, allowed: Iterable) -> Any:
    """Return ``value`` if it is one of ``allowed`` (18.0 is not 18), else raise ``ValueError``."""
    allowed = tuple(allowed)
    value = value.item() if isinstance(value, np.generic) else value
    if not any(type(value) is type(one) and value == one for one in allowed):
        words = [one for one in allowed if isinstance(one, str)]
        raise ValueError(f'{name} must be one of {allowed}, got {value!r}{hint(value, words)}')
    return value


def check_sequence(name: str, value: Any, length: int, minimum: int | None = 1) -> tuple:
    """Return ``value`` as a tuple of ``length`` entries.

    With ``minimum`` every entry must be an integer of at least that size,
    with ``minimum=None`` a bool.
    """
    if not is_sequence(value):
        raise TypeError(f'{name} must be a sequence of {length} entries, got {describe(value)}')
    if len(value) != length:
        raise ValueError(f'{name} must have {length} entries, got {len(value)}: {value!r}')
    if minimum is None:
        return tuple(check_bool(f'{name}[{i}]', entry) for i, entry in enumerate(value))
    return tuple(check_int(f'{name}[{i}]', entry, minimum) for i, entry in enumerate(value))


def is_sequence(value: Any) -> bool:
    """Return whether ``value`` is a list, a tuple, an array of one axis or such, and no text."""
    if isinstance(value, np.ndarray):
        return value.ndim == 1
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a real number, NumPy's included, and no bool."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def hint(word: Any, known: Iterable[str]) -> str:
    """``, did you mean '…'?`` with the nearest of the right words, or nothing."""
    near = difflib.get_close_matches(str(word), list(known), 1, 0.5)
    return f', did you mean {near[0]!r}?' if near else ''


def parameters_of(cls: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class by name, those that it hands to its bases by ``**kwargs`` included."""
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if '__init__' not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        for parameter in parameters:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                found.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    found.pop('self', None)
    return found


def check_names(
    name: str, cls: type, given: Iterable[str], init: Callable | None = None, also: tuple = ()
) -> None:
    """Refuse arguments that a class does not have.

    Args:
        name (str): The argument that the config came in, for the message; may be empty.
        cls (type): The class that the user wrote.
        given (Iterable[str]): Names of the arguments.
        init (Callable, optional): The constructor that takes them, if it is that of a base.
        also (tuple[str]): Names that are taken besides.

    Raises:
        TypeError: There is no such argument; with the nearest right word.
    """
    known = list(inspect.signature(init).parameters) if init else list(parameters_of(cls))
    for wrong in given:
        if wrong not in known and wrong not in also:
            words = [*known, *also, *(parameters_of(cls) if init else ())]
            where = f'{name}.{wrong}' if name else wrong
            near = hint(wrong, words) or f', it takes {sorted({*words} - {"self"})}'
            raise TypeError(f'{where}: {cls.__name__} has no such argument{near}')


def check_cfg(name: str, value: Any, optional: bool = False) -> dict | None:
    """Return a copy of the config dict ``value`` (it must carry a ``type``)."""
    if value is None and optional:
        return None
    if not isinstance(value, dict):
        allowed = "a dict with a 'type'" + (' or None' if optional else '')
        raise TypeError(f'{name} must be {allowed}, got {describe(value)}')
    if 'type' not in value:
        raise ValueError(f"{name} must be a dict with a 'type', got {value!r}")
    if not (isinstance(value['type'], (str, type)) and value['type']):
        raise TypeError(f"{name}: 'type' must be a name or a class, got {describe(value['type'])}")
    if wrong := [key for key in value if not isinstance(key, str)]:
        raise TypeError(f'{name} must have names as keys, got {describe(wrong[0])}')
    check_finite(name, value)
    return dict(value)


def check_finite(name: str, value: Any) -> None:
    """Refuse NaN and infinity anywhere in a config: they would become weights or outputs."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f'{name} must be finite, got {value}')
    entries = value.items() if isinstance(value, dict) else ()
    if isinstance(value, (list, tuple)):
        entries = enumerate(value)
    for key, entry in entries:
        check_finite(f'{name}[{key!r}]', entry)


def check_init_cfg(init_cfg: Any) -> list[dict]:
    """Initializers of MMEngine, built once to see that they take their arguments.

    Raises:
        TypeError: ``init_cfg`` is neither None nor a dict nor a list of them, or has a wrong key.
        ValueError: It names no initializer, or has a value that is not allowed.
    """
    if isinstance(init_cfg, dict):
        init_cfg = [init_cfg]
    if init_cfg is not None and not is_sequence(init_cfg):
        raise TypeError(f'init_cfg must be a dict, a list of them or None, got {init_cfg!r}')
    cfgs = [check_cfg('init_cfg', cfg) for cfg in init_cfg or ()]
    for cfg in cfgs:
        if is_pretrained(cfg['type']):
            _check_pretrained(cfg)
        with errors_named('init_cfg'):
            arguments = {key: v for key, v in cfg.items() if key != 'override'}
            if 'layer' not in arguments and 'override' in cfg:
                arguments['layer'] = []  # as MMEngine's ``initialize``
            WEIGHT_INITIALIZERS.build(arguments)
    return cfgs


def is_pretrained(kind: Any) -> bool:
    """Return whether an initializer loads a checkpoint."""
    return kind == 'Pretrained' or getattr(kind, '__name__', None) == 'PretrainedInit'


def _check_pretrained(cfg: dict) -> None:
    if not (isinstance(cfg.get('checkpoint'), str) and cfg['checkpoint']):
        raise ValueError(f"init_cfg: 'Pretrained' needs a checkpoint, got {cfg!r}")
    if not isinstance(cfg.get('prefix', ''), (str, type(None))):
        raise TypeError(f'init_cfg: prefix must be a string or None, got {cfg!r}')


@contextmanager
def errors_named(name: str) -> Iterator[None]:
    """Let what fails while a config is made into a module name the argument it came in.

    The libraries raise ``KeyError`` for a type that they do not know and ``AssertionError``,
    ``AttributeError``, ``RuntimeError`` or ``ZeroDivisionError`` for values that they cannot use.
    """
    try:
        yield
    except TypeError as error:
        raise TypeError(f'{name}: {error}') from error
    except (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError,
            RuntimeError, ValueError) as error:  # fmt: skip
        text = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise ValueError(f'{name}: {text or type(error).__name__}') from error
