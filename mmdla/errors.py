"""Errors that the user can correct."""


class InputError(Exception):
    """Something that was given (a file, an option) cannot be used.

    The tools print its message without a traceback and exit with code 2.
    """


class TrainingError(InputError):
    """A training that was going on cannot go on: a loss is NaN, the disk is full."""
