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
    model_cfg = deepcopy(cfg.model)
    model_cfg.pop('data_preprocessor', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope), torch.device('meta'):
        model = MODELS.build(model_cfg).eval()
    if cfg.default_scope == 'mmdet':
        forward, size = _detector, SIZES['detector']
    else:
        forward = nn.Module.__call__
        size = SIZES['cifar' if 'CIFAR' in model_cfg['backbone']['type'] else 'imagenet']
    parameters = sum(p.numel() for p in model.parameters())
    return Complexity(parameters, count_macs(model, lambda x: forward(model, x), size), size)


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


def _detector(model: nn.Module, image: Tensor) -> None:
    """Run the parts of a detector that hold weights; what lies between them has none."""
    features = model.extract_feat(image)
    if not hasattr(model, 'roi_head'):
        model.bbox_head(features)
        return
    model.rpn_head(features)
    roi_head = model.roi_head
    _roi_part(roi_head.bbox_roi_extractor, roi_head.bbox_head, PROPOSALS)
    if roi_head.with_mask:
        _roi_part(roi_head.mask_roi_extractor, roi_head.mask_head, MASK_PROPOSALS)


def _roi_part(extractor: nn.Module, head: nn.Module, count: int) -> None:
    size = extractor.roi_layers[0].output_size  # (height, width)
    head(torch.empty(count, extractor.out_channels, *size, device='meta'))
