"""Checks of constructor arguments, with one form of message for all of them."""

from collections.abc import Iterable, Sequence
from typing import Any


def describe(value: Any) -> str:
    return f'{value!r} ({type(value).__name__})'


def check_int(name: str, value: Any, minimum: int = 1, maximum: int | None = None) -> int:
    """Return ``value`` if it is an integer in ``[minimum, maximum]``.

    Raises:
        TypeError: ``value`` is no integer (``bool`` counts as none).
        ValueError: ``value`` is out of range.
    """
    allowed = f'an integer >= {minimum}' if maximum is None else f'{minimum}..{maximum}'
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} must be {allowed}, got {describe(value)}')
    if value < minimum or (maximum is not None and value > maximum):
        raise ValueError(f'{name} must be {allowed}, got {value}')
    return value


def check_bool(name: str, value: Any) -> bool:
    """Return ``value`` if it is ``True`` or ``False``, else raise ``TypeError``."""
    if not isinstance(value, bool):
        raise TypeError(f'{name} must be True or False, got {describe(value)}')
    return value


def check_rate(name: str, value: Any) -> float:
    """Return ``value`` if it is a probability in ``[0, 1)``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f'{name} must be a number in [0, 1), got {describe(value)}')
    if not 0 <= value < 1:
        raise ValueError(f'{name} must be a number in [0, 1), got {value}')
    return float(value)


def check_choice(name: str, value: Any, allowed: Iterable) -> Any:
    """Return ``value`` if it is one of ``allowed``, else raise ``ValueError``."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f'{name} must be one of {allowed}, got {value!r}')
    return value


def check_sequence(name: str, value: Any, length: int, minimum: int | None = 1) -> tuple:
    """Return ``value`` as a tuple of ``length`` entries.

    With ``minimum`` every entry must be an integer of at least that size,
    with ``minimum=None`` a bool.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f'{name} must be a sequence of {length} entries, got {describe(value)}')
    if len(value) != length:
        raise ValueError(f'{name} must have {length} entries, got {len(value)}: {value!r}')
    for i, entry in enumerate(value):
        if minimum is None:
            check_bool(f'{name}[{i}]', entry)
        else:
            check_int(f'{name}[{i}]', entry, minimum)
    return tuple(value)


def check_cfg(name: str, value: Any, optional: bool = False) -> dict | None:
    """Return a copy of the config dict ``value`` (it must carry a ``type``)."""
    if value is None and optional:
        return None
    if not isinstance(value, dict):
        allowed = "a dict with a 'type'" + (' or None' if optional else '')
        raise TypeError(f'{name} must be {allowed}, got {describe(value)}')
    if 'type' not in value:
        raise ValueError(f"{name} must be a dict with a 'type', got {value!r}")
    return dict(value)
