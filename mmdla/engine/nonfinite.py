"""Where in a model the first NaN or infinite value arises."""

import math
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from mmengine.structures import BaseDataElement
from torch import Tensor, nn


class Call:
    """The arguments and the random numbers of one forward call, so that it can be repeated.

    Args:
        args (tuple): Positional arguments.
        kwargs (dict): Keyword arguments.
    """

    def __init__(self, args: tuple, kwargs: dict) -> None:
        self.args, self.kwargs = args, kwargs
        self.devices = list(range(torch.cuda.device_count())) if _cuda_in_use() else []
        self.random = [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self.devices)]

    def repeat(self, model: nn.Module) -> Any:
        """Call ``model`` again, with the same random numbers of PyTorch."""
        with torch.random.fork_rng(self.devices):
            torch.set_rng_state(self.random[0])
            for device, state in zip(self.devices, self.random[1:], strict=True):
                torch.cuda.set_rng_state(state, device)
            return model(*self.args, **self.kwargs)


def find_in_forward(model: nn.Module, call: Call, context: AbstractContextManager) -> str:
    """Repeat a forward call whose loss was not finite and say where that begins.

    Args:
        model (nn.Module): The model.
        call (Call): Its call.
        context (AbstractContextManager): Of mixed precision, as in the first call.

    Returns:
        str: The input, the parameter or the module in which the first such value appears, in the
        order of execution.
    """
    for name, tensor in named_tensors(call.kwargs, ''):
        if (kind := nonfinite_kind(tensor)) is not None:
            return f'it is in the input data: {name} holds {kind}{_image(call.kwargs, name)}'
    for number, value in enumerate(call.args):
        for name, tensor in named_tensors(value, f'argument {number}'):
            if (kind := nonfinite_kind(tensor)) is not None:
                return f'it is in the input data: {name} holds {kind}'
    found: list[str] = []
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if module is model:
                continue
            stack.callback(_watch_input(name, module, found).remove)
            stack.callback(_watch_output(name, module, found).remove)
        stack.enter_context(context)
        with torch.no_grad():
            losses = call.repeat(model)
    if found:
        return found[0]
    if all(nonfinite_kind(tensor) is None for _, tensor in named_tensors(losses, 'losses')):
        return 'it did not appear again when the same batch was computed a second time'
    return 'the output of every module is finite, so it arises in the calculation of the loss'


def find_in_backward(model: nn.Module, call: Call, context: AbstractContextManager) -> str:
    """Repeat a step whose loss was finite, but not its gradients; say which operation failed."""
    params = [p for p in model.parameters() if p.requires_grad]
    try:
        with warnings.catch_warnings(), torch.autograd.set_detect_anomaly(True):
            warnings.simplefilter('ignore')  # PyTorch prints where the forward pass was
            with context:
                losses = call.repeat(model)
            total = sum(t.mean() for n, t in named_tensors(losses, 'losses') if 'loss' in n[6:])
            torch.autograd.grad(total, params, allow_unused=True)
    except RuntimeError as error:
        return str(error).splitlines()[0]
    return ''


def nonfinite_kind(tensor: Tensor) -> str | None:
    """``'NaN'``, ``'infinite values'`` or, for a tensor without either, ``None``."""
    if not tensor.is_floating_point() or torch.isfinite(tensor).all():
        return None
    return 'NaN' if torch.isnan(tensor).any() else 'infinite values'


def named_tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested containers, data samples and boxes, with the way to them."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, BaseDataElement):
        for key, item in value.items():
            yield from named_tensors(item, f'{name}.{key}')
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from named_tensors(item, f'{name}.{key}' if name else str(key))
    elif isinstance(value, (list, tuple)):
        for number, item in enumerate(value):
            yield from named_tensors(item, f'{name}[{number}]')
    elif isinstance(getattr(value, 'tensor', None), Tensor):  # boxes of MMDetection
        yield name, value.tensor


def _watch_input(name: str, module: nn.Module, found: list[str]):
    def look(module: nn.Module, args: tuple, kwargs: dict) -> None:
        if not found and (kind := _first_kind([args, kwargs])):
            parent = name.rpartition('.')[0] or 'the model'
            found.append(f'{kind} first in {parent}, in what it passes to {name}')

    return module.register_forward_pre_hook(look, with_kwargs=True)


def _watch_output(name: str, module: nn.Module, found: list[str]):
    def look(module: nn.Module, args: tuple, output: Any) -> None:
        if found or not (kind := _first_kind(output)):
            return
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        broken = [f'{n} holds {k}' for n, t in own if (k := nonfinite_kind(t)) is not None]
        why = f'; its {broken[0]}' if broken else ', from finite inputs and weights'
        found.append(f'{kind} first in the output of {name} ({type(module).__name__}){why}')

    return module.register_forward_hook(look)


def _first_kind(value: Any) -> str | None:
    kinds = (nonfinite_kind(tensor) for _, tensor in named_tensors(value, ''))
    return next((kind for kind in kinds if kind is not None), None)


def _image(kwargs: dict, name: str) -> str:
    """Return the file of the image that holds the value, if the data samples say it."""
    samples = kwargs.get('data_samples') or []
    inputs = kwargs.get('inputs')
    if not name.startswith('inputs') or inputs is None or len(inputs) != len(samples):
        return ''
    for number, (image, sample) in enumerate(zip(inputs, samples, strict=True)):
        if _first_kind(image):
            path = getattr(sample, 'img_path', None)
            return f' (image {number} of the batch{f", {path}" if path else ""})'
    return ''


def format_value(value: Any) -> str:
    """Return a loss as it is logged."""
    number = float(torch.as_tensor(value).detach())
    return f'{number:.4g}' if math.isfinite(number) else str(number)


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_initialized()
