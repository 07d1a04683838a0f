"""Stop a training at the first loss or gradient that is not finite, and say where it came from."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import Tensor, nn

from mmdla.errors import TrainingError
from mmdla.models.arguments import check_bool

from .nonfinite import Call, find_in_backward, find_in_forward, format_value, nonfinite_kind


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """End the training when a loss or a gradient is NaN or infinite, before the weights are.

    The loss is looked at in every iteration before the backward pass, the norm of the gradients
    before the optimizer's step, so the weights in memory are still the good ones, and no
    checkpoint with a NaN in it is ever written. The message names the iteration, the parts of the
    loss, and the first module, in the order of execution, whose output is not finite, or the
    input or parameter that brought it in; for that the batch is computed a second time, with the
    same random numbers, only after it happened. With several processes all of them stop.

    MMDetection's ``CheckInvalidLossHook`` looks at every 50th loss after the step, does not say
    where, and leaves checkpoints with NaN behind.

    Under a gradient scaler (``AmpOptimWrapper``) infinite gradients are normal, they make it skip
    a step: there only the loss is looked at.

    Args:
        gradients (bool): Look at the gradients too. Default: True.

    Raises:
        TrainingError: During training, see above.

    Example:
        >>> custom_hooks = [dict(type='mmdla.engine.FiniteLossHook')]
    """

    def __init__(self, gradients: bool = True) -> None:
        self.gradients = check_bool('gradients', gradients)
        self._call: Call | None = None
        self._undo: list[Callable[[], Any]] = []

    def before_train(self, runner: Runner) -> None:
        model = _inner(runner.model)
        handle = model.register_forward_pre_hook(self._remember, with_kwargs=True)
        self._undo.append(handle.remove)
        if hasattr(model, 'parse_losses'):
            self._wrap(model, 'parse_losses', self._with_check_of_loss(runner, model))
        if self.gradients:
            for wrapper in _optim_wrappers(runner.optim_wrapper):
                if not hasattr(wrapper, 'loss_scaler'):
                    self._wrap(wrapper, 'step', self._with_check_of_gradients(runner, model))

    def after_train_iter(self, runner: Runner, *args, **kwargs) -> None:
        self._call = None  # and the memory of the batch

    def after_train(self, runner: Runner) -> None:
        while self._undo:
            self._undo.pop()()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        parameters = {name for name, _ in _inner(runner.model).named_parameters()}
        for name, tensor in checkpoint.get('state_dict', {}).items():
            kind = nonfinite_kind(tensor)
            if kind == 'NaN' or (kind and name in parameters):
                raise TrainingError(
                    f'iteration {runner.iter + 1}: no checkpoint is written, since {name} holds '
                    f'{kind}. {_last_checkpoint(runner)}'
                )

    def _remember(self, model: nn.Module, args: tuple, kwargs: dict) -> None:
        self._call = Call(args, kwargs)

    def _wrap(self, owner: Any, name: str, decorate: Callable[[Callable], Callable]) -> None:
        setattr(owner, name, decorate(getattr(owner, name)))
        self._undo.append(lambda: delattr(owner, name))

    def _with_check_of_loss(self, runner: Runner, model: nn.Module) -> Callable:
        def decorate(parse_losses: Callable) -> Callable:
            @wraps(parse_losses)
            def checked(losses: dict) -> tuple[Tensor, dict]:
                total, parts = parse_losses(losses)
                broken = not torch.isfinite(torch.as_tensor(total).detach()).all()
                if _on_any_process(broken, total):
                    self._stop(runner, self._about_loss(runner, model, parts) if broken else '')
                return total, parts

            return checked

        return decorate

    def _with_check_of_gradients(self, runner: Runner, model: nn.Module) -> Callable:
        def decorate(step: Callable) -> Callable:
            @wraps(step)
            def checked(*args, **kwargs) -> Any:
                with_gradient = {
                    name: p
                    for name, p in model.named_parameters()
                    if p.grad is not None and not p.grad.is_sparse
                }
                broken = not _norm_is_finite(list(with_gradient.values()))
                like = next(iter(with_gradient.values()), torch.zeros(()))
                if _on_any_process(broken, like):
                    text = self._about_gradients(runner, model, with_gradient) if broken else ''
                    self._stop(runner, text)
                return step(*args, **kwargs)

            return checked

        return decorate

    def _about_loss(self, runner: Runner, model: nn.Module, parts: dict) -> str:
        losses = {name: value for name, value in parts.items() if 'loss' in name}
        broken = {n: v for n, v in losses.items() if not torch.isfinite(torch.as_tensor(v)).all()}
        if len(broken) > 1:
            broken.pop('loss', None)  # the sum
        names = ', '.join(f'{name}: {format_value(value)}' for name, value in broken.items())
        text = f'the loss is not finite ({names})'
        if self._call is not None:
            where = find_in_forward(model, self._call, _precision(runner, model))
            text += f'; {where}'
        return text

    def _about_gradients(self, runner: Runner, model: nn.Module, params: dict) -> str:
        broken = [name for name, p in params.items() if nonfinite_kind(p.grad) is not None]
        if not broken:
            return 'the loss is finite, but the norm of the gradients is not'
        text = (
            f'the loss is finite, but not the gradients of {len(broken)} of {len(params)} '
            f'parameters; the last of them in the model, where a backward pass begins, is '
            f'{broken[-1]} ({nonfinite_kind(params[broken[-1]].grad)})'
        )
        if self._call is not None:
            where = find_in_backward(model, self._call, _precision(runner, model))
            text += f'; {where}' * bool(where)
        return text

    def _stop(self, runner: Runner, text: str) -> None:
        """End all processes with what each of those that are concerned has to say."""
        texts = all_gather_object(text)
        many = len(texts) > 1
        lines = [f'process {i}: {t}' if many else t for i, t in enumerate(texts) if t]
        loop = runner.train_loop
        raise TrainingError(
            f'training stopped in iteration {loop.iter + 1} (epoch {loop.epoch + 1}): '
            + '\n  '.join(lines)
            + f'\nThe weights were not changed by this step. {_last_checkpoint(runner)}'
        )


def _inner(model: nn.Module) -> nn.Module:
    while is_model_wrapper(model):
        model = model.module
    return model


def _optim_wrappers(wrapper: Any) -> list:
    return list(getattr(wrapper, 'optim_wrappers', {'': wrapper}).values())


def _precision(runner: Runner, model: nn.Module) -> AbstractContextManager:
    """Return the context of mixed precision in which the optimizer's wrapper computes the loss."""
    context = getattr(runner.optim_wrapper, 'optim_context', None)
    return nullcontext() if context is None else context(model)


def _norm_is_finite(params: list[nn.Parameter]) -> bool:
    try:  # looks before it scales, here by 1
        nn.utils.clip_grad_norm_(params, float('inf'), error_if_nonfinite=True)
    except RuntimeError:
        return False
    return True


def _on_any_process(broken: bool, like: Tensor) -> bool:
    if get_world_size() == 1:
        return broken
    flag = torch.tensor(float(broken), device=torch.as_tensor(like).device)
    all_reduce(flag, op='max')
    return bool(flag)


def _last_checkpoint(runner: Runner) -> str:
    last = runner.message_hub.runtime_info.get('last_ckpt')
    return 'No checkpoint was written before.' if last is None else f'The last checkpoint: {last}'
