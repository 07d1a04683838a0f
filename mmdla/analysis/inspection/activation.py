"""Where in an image a layer is active, and which of it speaks for what the model found.

For classifiers the second is Grad-CAM (Selvaraju et al., ICCV 2017) of the highest class: the
feature maps weighted by their pooled gradients. For detectors it is the product of feature and
gradient at every place (as in ODAM, ICLR 2023), of the sum of the scores of all detections that
are kept (one-stage ones:
:meth:`ModelUnderTest.target`); pooling would mix the gradients of objects in different places.
"""

import difflib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from mmdla.errors import InputError


@dataclass(frozen=True)
class ActivationMap:
    """Maps of one layer for an image.

    Args:
        layer (str): Name of the module.
        strength (Tensor): Mean of ``|A|`` over the channels of its output ``A``, shape (h, w).
        evidence (Tensor, optional): What speaks for (> 0) and against (< 0) the target, shape
            (h, w). ``None``: the target does not depend on the layer, or there is none.
        size (tuple[int, int]): Height and width of the network's input, which both maps cover.
    """

    layer: str
    strength: Tensor
    evidence: Tensor | None
    size: tuple[int, int]


def activation_maps(
    model: nn.Module,
    backbone: nn.Module,
    layers: Sequence[str],
    target: Callable[[], Tensor | None],
    pooled: bool,
) -> list[ActivationMap]:
    """Activation maps of one image.

    Args:
        model (nn.Module): The whole model.
        backbone (nn.Module): What gets the image as a tensor.
        layers (Sequence[str]): Modules of ``model`` that give feature maps, e.g.
            ``'backbone.layer4'``.
        target (Callable): Runs the model on the image and gives the score to be explained, a
            scalar, or ``None`` if there is nothing to explain.
        pooled (bool): Pool the gradients over the image (Grad-CAM), or use them place by place.

    Raises:
        InputError: There is no such layer, or it gives no single feature map.
    """
    modules = find_layers(model, layers)
    outputs: dict[str, list] = {name: [] for name in layers}
    sizes: list[tuple[int, int]] = []

    def start(_module, args):
        sizes.append(tuple(args[0].shape[-2:]))
        # so that layers without trainable parameters before them are part of the graph
        return (args[0].detach().requires_grad_(), *args[1:])

    def collect(name, _module, _args, out):
        outputs[name].append(out)

    with ExitStack() as stack, torch.enable_grad():
        stack.callback(backbone.register_forward_pre_hook(start).remove)
        for name, module in modules.items():
            stack.callback(module.register_forward_hook(partial(collect, name)).remove)
        score = target()
    maps = [_single_map(name, found) for name, found in outputs.items()]  # each (1, C, h, w)
    gradients: Sequence[Tensor | None] = [None] * len(maps)
    if score is not None:
        gradients = torch.autograd.grad(score, maps, allow_unused=True)
    return [
        ActivationMap(
            name,
            features[0].detach().abs().mean(0).float().cpu(),
            None if gradient is None else evidence(features[0], gradient[0], pooled).float().cpu(),
            sizes[-1],
        )
        for name, features, gradient in zip(layers, maps, gradients, strict=True)
    ]


def evidence(features: Tensor, gradient: Tensor, pooled: bool) -> Tensor:
    """``Σ_c w_c A_c`` with the gradients, or their means, as weights: (C, h, w) to (h, w)."""
    weights = gradient.mean((1, 2), keepdim=True) if pooled else gradient  # (C, 1 or h, 1 or w)
    return (weights * features).sum(0).detach()


def find_layers(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    """Modules by name.

    Raises:
        InputError: There is no such module.
    """
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules or not name:
            close = difflib.get_close_matches(name, modules, n=3, cutoff=0.4)
            hint = f'; names like it are {", ".join(close)}' if close else ''
            raise InputError(f'--layer {name}: the model has no such layer{hint}')
    return {name: modules[name] for name in layers}


def _single_map(name: str, outputs: list) -> Tensor:
    if len(outputs) != 1:
        raise InputError(f'--layer {name}: it must run once an image, it ran {len(outputs)} times')
    if not (isinstance(outputs[0], Tensor) and outputs[0].ndim == 4):
        shape = getattr(outputs[0], 'shape', None)
        got = f'shape {tuple(shape)}' if shape is not None else type(outputs[0]).__name__
        raise InputError(
            f'--layer {name}: its output must be a feature map (B, C, H, W), got {got}'
        )
    return outputs[0]
