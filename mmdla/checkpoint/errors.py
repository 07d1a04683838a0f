"""The error of everything that has to do with checkpoints."""

from collections.abc import Sequence


class CheckpointError(ValueError):
    """A checkpoint cannot be read, is not recognised or does not fit the model."""


def some(names: Sequence[str], most: int = 6) -> str:
    """Return the first names of a list, and how many more there are."""
    rest = len(names) - most
    return ', '.join(names[:most]) + (f', and {rest} more' if rest > 0 else '')
