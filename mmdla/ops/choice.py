"""Whether the fused operations run, or the modules that they stand for. Decided here alone.

Modules run whenever somebody could notice the difference: hooks on what would not be called, a
replaced ``forward``, tracers, dispatch modes, function transforms, tensor subclasses.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as module_hooks
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext

from .backend import enabled_by_default, unsupported_reason

OPS = ('auto', 'reference', 'fast')
VARIABLE = 'MMDLA_OPS'


def check_ops(ops: str) -> str:
    """Return ``'auto'``, ``'reference'`` or ``'fast'``, or raise ``ValueError``."""
    if ops not in OPS:
        raise ValueError(f'ops must be one of {", ".join(map(repr, OPS))}, got {ops!r}')
    return ops


def requested_ops(ops: str = 'auto') -> str:
    """Return what an argument and the variable ``MMDLA_OPS`` ask for; the argument wins."""
    if ops == 'auto':
        ops = os.environ.get(VARIABLE) or 'auto'
        if ops not in OPS:
            raise ValueError(f'{VARIABLE} must be one of {", ".join(OPS)}, got {ops!r}')
    return ops


def kernels_run(
    ops: str,
    x: Tensor,
    modules: Iterable[nn.Module] = (),
    reason: Callable[[], str | None] = lambda: None,
) -> bool:
    """Whether the fused operations run on maps like ``x`` in place of these modules.

    Args:
        ops (str): The argument of the layer attention. With ``'fast'`` also under dispatch modes,
            which see the operations, and on devices where they do not run by default.
        x (Tensor): One of the maps, shape (B, C, H, W).
        modules (Iterable[nn.Module]): What would not be called.
        reason (Callable): Says why they cannot stand for the modules, or returns ``None``.

    Raises:
        RuntimeError: ``ops='fast'`` where the kernels do not take such maps.
    """
    if torch.compiler.is_compiling() and _is_exporting():
        return False  # said before the variable is read, which PyTorch 2.4 cannot trace
    requested = requested_ops(ops)
    if requested == 'reference' or is_looked_into(x, modes=requested == 'auto'):
        return False
    if requested == 'auto' and not enabled_by_default(x):
        return False
    if are_observed(modules):
        return False
    if x.numel() == 0:
        return False  # no kernel has anything to do
    unsupported = reason() or unsupported_reason(x)
    if unsupported is not None and requested == 'fast':
        raise RuntimeError(f"ops='fast' cannot be used: {unsupported}")
    return unsupported is None


def is_looked_into(x: Any, modes: bool = True) -> bool:
    """Whether something follows the single operations of a forward pass.

    Args:
        x (Tensor): A map; a proxy of ``torch.fx`` or a tensor subclass is followed.
        modes (bool): Whether dispatch modes count.
    """
    if torch.compiler.is_compiling():
        return _is_exporting()
    if type(x) is not Tensor or torch.jit.is_tracing():
        return True
    if torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0:
        return True
    if modes and torch._C._len_torch_dispatch_stack() > 0:
        return True
    if torch._C._len_torch_function_stack() > 0 and modes:
        stack = _get_current_function_mode_stack()
        # a default device is such a mode too
        return not all(isinstance(mode, DeviceContext) for mode in stack)
    return False


@torch.compiler.assume_constant_result  # a compiler takes is_exporting() itself for true
def _is_exporting() -> bool:
    """Whether ``torch.export`` traces, whose programs other runtimes read."""
    is_exporting = getattr(torch.compiler, 'is_exporting', None)
    return is_exporting is None or is_exporting()  # PyTorch before 2.7 cannot tell


def has_global_hooks() -> bool:
    """Whether hooks are registered on all modules; PyTorch 2.4 has no function for that."""
    return bool(
        module_hooks._global_forward_hooks
        or module_hooks._global_forward_pre_hooks
        or module_hooks._global_backward_hooks
        or module_hooks._global_backward_pre_hooks
    )


def is_observed(module: nn.Module) -> bool:
    """Whether a call of a module is seen by somebody, or is not that of its class."""
    return are_observed((module,))


def are_observed(modules: Iterable[nn.Module]) -> bool:
    """Whether :func:`is_observed` holds for one of them."""
    if has_global_hooks():
        return True
    for module in modules:
        if (
            module._forward_hooks
            or module._forward_pre_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or 'forward' in module.__dict__
            or 'parametrizations' in module._modules
        ):
            return True
    return False
