"""Check weights for what can be wrong although their names are right."""

from torch import Tensor

from .errors import some


def weight_problems(state: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, list[str]]:
    """Weights that a model cannot take, by the kind of problem.

    PyTorch would cast integers or complex numbers to floats, and load NaN, without a word.

    Args:
        state (dict): Weights that are to be loaded.
        own (dict): State dict of the model; names that it does not have are left alone.
    """
    shared = {name: v for name, v in state.items() if name in own}
    return {
        'other shapes': [
            f'{name} {tuple(v.shape)} (model: {tuple(own[name].shape)})'
            for name, v in shared.items()
            if v.shape != own[name].shape
        ],
        'other kinds of numbers': [
            f'{name} {v.dtype} (model: {own[name].dtype})'
            for name, v in shared.items()
            if v.is_floating_point() != own[name].is_floating_point()
            and not name.endswith('num_batches_tracked')
        ],
        'NaN or infinite values': [
            name for name, v in shared.items() if v.is_floating_point() and not _is_finite(v)
        ],
    }


def listed(problems: dict[str, list[str]]) -> list[str]:
    """Return a line for every kind of problem that there is."""
    return [f'{what} ({len(names)}): {some(names)}' for what, names in problems.items() if names]


def _is_finite(v: Tensor) -> bool:
    return bool((v.float() if v.element_size() == 1 else v).isfinite().all())  # 1: float8
