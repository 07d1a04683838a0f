"""Parameters and multiply-adds of models, counted without computing anything."""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..models.resnet.stage import ResStage

PROPOSALS = 1000  # what mmdet's own FLOPs counter gives to the box head ...
MASK_PROPOSALS = 100  # ... and to the mask head
SIZES = dict(cifar=(32, 32), imagenet=(224, 224), detector=(800, 1280))  # height, width


class Complexity(NamedTuple):
    """Size of a model: parameters, multiply-adds of one picture, that picture's (height, width)."""

    parameters: int
    macs: int
    size: tuple[int, int]


def measure(cfg: Config) -> Complexity:
    """Count a whole model of a config, on the meta device: no memory and no time is needed.

    Counted as multiply-adds are those of convolutions, linear layers and of the sums over blocks
    in DLA-B and MRLA-B. A detector with proposals is counted as mmdet counts it: 1000 of them for
    the box head and 100 for the mask head.

    Args:
        cfg (Config): Config of a classifier or detector, with ``default_scope``.

    Returns:
        Complexity: At 32x32 pixels (CIFAR), 224x224 (other classifiers) or 800x1280 (detectors).
    """
    model, size = build_on_meta(cfg).eval(), input_size(cfg)
    forward = run_detector if cfg.default_scope == 'mmdet' else nn.Module.__call__
    parameters = sum(p.numel() for p in model.parameters())
    return Complexity(parameters, count_macs(model, lambda x: forward(model, x), size), size)


def build_on_meta(cfg: Config) -> nn.Module:
    """The model of a config, without memory for its parameters."""
    model_cfg = deepcopy(cfg.model)
    model_cfg.pop('data_preprocessor', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        return MODELS.build(model_cfg)


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the pictures that a config's model is counted with."""
    if cfg.default_scope == 'mmdet':
        return SIZES['detector']
    return SIZES['cifar' if 'CIFAR' in cfg.model.backbone.type else 'imagenet']


def count_macs(model: nn.Module, forward: Callable[[Tensor], object], size: tuple[int, int]) -> int:
    """Multiply-adds of ``forward`` with one picture, (1, 3, *size), on the meta device."""
    sums = 0

    def count_sums(stage: ResStage, _, out: Tensor) -> None:
        nonlocal sums
        if stage.attention is not None:
            counts = (stage.attention.maps_summed(i) for i in range(len(stage)))
            sums += sum(counts) * out.numel()

    stages = [module for module in model.modules() if isinstance(module, ResStage)]
    hooks = [stage.register_forward_hook(count_sums) for stage in stages]
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            forward(torch.empty(1, 3, *size, device='meta'))
    finally:
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // 2 + sums


def run_detector(
    model: nn.Module, images: Tensor, proposals: int = PROPOSALS, masks: int = MASK_PROPOSALS
) -> list:
    """Run the parts of a detector that hold weights; what lies between them has none.

    Args:
        model (nn.Module): A detector of MMDetection.
        images (Tensor): Shape (B, 3, H, W).
        proposals (int): Regions that the box head gets, of all the images.
        masks (int): Regions that the mask head gets.

    Returns:
        list: What the heads return.
    """
    features = model.extract_feat(images)
    if not hasattr(model, 'roi_head'):
        return [model.bbox_head(features)]
    outs = [model.rpn_head(features)]
    roi_head = model.roi_head
    outs.append(_roi_part(roi_head.bbox_roi_extractor, roi_head.bbox_head, proposals))
    if roi_head.with_mask:
        outs.append(_roi_part(roi_head.mask_roi_extractor, roi_head.mask_head, masks))
    return outs


def _roi_part(extractor: nn.Module, head: nn.Module, count: int) -> object:
    size = extractor.roi_layers[0].output_size  # (height, width)
    return head(torch.empty(count, extractor.out_channels, *size, device='meta'))
