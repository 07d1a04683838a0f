"""Gradient checkpointing that leaves the running statistics of norm layers as they should be."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint as torch_checkpoint


def checkpoint(module: nn.Module, function: Callable, *args: Any) -> Any:
    """``function(*args)``, recomputed in the backward pass.

    The second run must not update the running statistics of the norm layers in ``module`` again.
    """
    return torch_checkpoint(
        function,
        *args,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), _StatisticsKept(module)),
    )


class _StatisticsKept:
    """Within it the norm layers of a module keep their running statistics; may be entered again."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.before = []  # for every time that it is entered, so that it may be nested

    def __enter__(self) -> None:
        before = [
            (norm, norm.momentum, norm.num_batches_tracked.clone())
            for norm in self.module.modules()
            if isinstance(norm, _BatchNorm) and norm.training and norm.track_running_stats
        ]
        self.before.append(before)
        for norm, *_ in before:
            norm.momentum = 0.0  # the means stay, and the same tensors are saved as the first time

    def __exit__(self, *_) -> None:
        for norm, momentum, batches in self.before.pop():
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)
