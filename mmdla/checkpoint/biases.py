"""Biases of convolutions in checkpoints of Caffe and Detectron; the model's have none."""

import re

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

State = dict[str, Tensor]


def take_biases(state: State, model: nn.Module) -> tuple[State, list[str], list[str], list[str]]:
    """Take the biases of convolutions out of a state dict, so that the model computes the same.

    A norm that follows takes the mean of each channel away, and a bias with it: from the running
    mean of a batch norm the bias is subtracted, ``(Wx + b) - mean = Wx - (mean - b)``; what
    normalizes by the statistics of its input alone does not see the bias.

    Args:
        state (dict): The checkpoint, under the model's names.
        model (nn.Module): The backbone.

    Returns:
        tuple: The state dict without them; the names of those that change nothing, of those in
        running means now, and in words why others cannot be taken away.
    """
    own = model.state_dict()
    state, idle, folded, problems = dict(state), [], [], []
    for name in [name for name in state if name.endswith('.bias') and name not in own]:
        conv = name.removesuffix('.bias')
        if f'{conv}.weight' not in own or own[f'{conv}.weight'].ndim != 4:
            continue  # not a convolution's
        if conv.startswith('layer') and '.attention.' in conv:
            continue
        bias = state.pop(name)
        mean = _norm_after(conv, model) + '.running_mean'
        reason = _reason(bias, own[f'{conv}.weight'], model, mean.removesuffix('.running_mean'))
        if reason is None and not bias.any():
            idle.append(name)
        elif reason is None and mean not in own:
            idle.append(name)
        elif reason is None and mean in state and state[mean].shape == bias.shape:
            state[mean] = state[mean].double() - bias.double()
            folded.append(name)
        else:
            problems.append(f'{name}: {reason or f"{mean} is not in the checkpoint"}')
    return state, idle, folded, problems


def _reason(bias: Tensor, weight: Tensor, model: nn.Module, norm: str) -> str | None:
    """Why the model cannot do without a bias, if so."""
    if bias.shape != weight.shape[:1]:
        return f'shape {tuple(bias.shape)} for {len(weight)} channels'
    if not (bias.is_floating_point() and torch.isfinite(bias.float()).all()):
        return 'no finite numbers'
    kind = dict(model.named_modules()).get(norm)
    if bias.any() and not isinstance(kind, _NormBase):
        return f'not zero, and {type(kind).__name__} after it does not take it away'
    return None


def _norm_after(conv: str, model: nn.Module) -> str:
    """Name of the norm layer behind a convolution of a ResNet."""
    parent, _, name = conv.rpartition('.')
    if match := re.fullmatch(r'conv(\d)', name):
        owner = model.get_submodule(parent)
        norm = getattr(owner, f'norm{match[1]}_name', '')
    else:  # in a sequence: deep stems, shortcuts
        norm = str(int(name) + 1) if name.isdigit() else ''
    return f'{parent}.{norm}' if parent else norm
