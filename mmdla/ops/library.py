"""The operations as PyTorch knows them, ``torch.ops.mmdla.*``, and what each consists of.

An operation has a schema, a reference in plain PyTorch (which also serves dtypes and layouts that
the kernels do not take), an implementation by the kernels of the CPU and of GPUs, a rule for
tensors without data and, if it takes part in training, a rule for its gradient.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from . import backend

NAMESPACE = 'mmdla'
LIBRARY = torch.library.Library(NAMESPACE, 'DEF')


def define(
    schema: str,
    *,
    maps: Callable[..., Sequence[Tensor]] | None = None,
    reference: Callable,
    kernel: Callable,
    fake: Callable,
    backward: Callable | None = None,
    setup_context: Callable | None = None,
) -> torch._ops.OpOverload:
    """Register an operation.

    Args:
        schema (str): ``name(arguments) -> results`` in PyTorch's notation.
        maps (Callable, optional): Takes the arguments, returns the maps (B, C, H, W) that the
            kernels read. Default: there are none, the first tensor is a vector.
        reference (Callable): Takes the arguments; plain PyTorch.
        kernel (Callable): Takes the kernels (:func:`mmdla.ops.backend.kernels`) and the arguments.
        fake (Callable): Results of the right shape, dtype and layout, without data.
        backward (Callable, optional): ``(ctx, *gradients)`` to the gradients of the arguments.
        setup_context (Callable, optional): ``(ctx, inputs, output)``; saves for ``backward``.

    Returns:
        OpOverload: The operation.
    """
    name = schema.split('(')[0]

    def choose(*args: Any) -> Any:
        if maps is None:
            found = backend.vector_kernels(next(a for a in args if isinstance(a, Tensor)))
        else:
            found = backend.kernels(*maps(*args))
        return reference(*args) if found is None else kernel(found, *args)

    LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(name, _without_autocast(reference), 'CompositeExplicitAutograd')
    for key in ('CPU', 'CUDA'):
        LIBRARY.impl(name, _without_autocast(choose, key.lower()), key)
    torch.library.register_fake(f'{NAMESPACE}::{name}', fake, lib=LIBRARY)
    if backward is not None:
        torch.library.register_autograd(
            f'{NAMESPACE}::{name}', backward, setup_context=setup_context, lib=LIBRARY
        )
    return getattr(getattr(torch.ops, NAMESPACE), name).default


def _without_autocast(function: Callable, device_type: str | None = None) -> Callable:
    """Under autocast the dtypes are those of the arguments: maps in half precision, vectors not.

    Args:
        function (Callable): What is to run.
        device_type (str, optional): Of the arguments. Default: it is looked for.
    """

    def run(*args: Any) -> Any:
        device = device_type or _device_type(args)
        if not torch.is_autocast_enabled(device):
            return function(*args)
        with torch.autocast(device, enabled=False):
            return function(*args)

    return run


def _device_type(args: tuple) -> str:
    return next(a.device.type for a in tree_leaves(args) if isinstance(a, Tensor))


def only_reached(gradients: Sequence[Tensor], reached: Sequence[bool]) -> list[Tensor | None]:
    """Put ``None`` where autograd of the modules would: a zero makes an optimizer take a step.

    Args:
        gradients (Sequence[Tensor]): Of the inputs, empty where there is no input.
        reached (Sequence[bool]): Whether an input takes part in a result that has a gradient.
    """
    return [g if r and g.numel() else None for g, r in zip(gradients, reached, strict=True)]


def is_differentiated(*gradients: Tensor | None) -> bool:
    """Whether a backward rule is itself looked at: ``create_graph``, or a transform over it.

    Args:
        gradients (Tensor, optional): What the rule was given.

    The kernels of a backward pass have no derivative, so their references run then: every rule
    below is written in plain PyTorch as well.
    """
    return (
        torch.is_grad_enabled()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or any(g is not None and is_legacy_batchedtensor(g) for g in gradients)
    )
