"""Parameters and multiply-adds of models, counted without computing anything."""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn

from mmdla.analysis.macs import ATTENTION, MacCounter
from mmdla.config_types import type_name

PROPOSALS = 1000  # what mmdet's own FLOPs counter gives to the box head ...
MASK_PROPOSALS = 100  # ... and to the mask head
# height, width; of segmentation the size that its images are padded to
SIZES = dict(cifar=(32, 32), imagenet=(224, 224), detector=(800, 1280), oriented=(1024, 1024))


class Complexity(NamedTuple):
    """Size of a model: parameters, multiply-adds of one image, that image's (height, width)."""

    parameters: int
    macs: int
    size: tuple[int, int]


class Share(NamedTuple):
    """Parameters and multiply-adds of a part of a model, or of its layer attention."""

    name: str
    parameters: int
    macs: int


def measure(cfg: Config, size: tuple[int, int] | None = None) -> Complexity:
    """Count a whole model of a config, on the meta device: no memory and no time is needed.

    Counted as multiply-adds are those of convolutions, linear layers and of the sums over blocks
    in DLA-B and MRLA-B. A detector with proposals is counted as mmdet counts it: 1000 of them for
    the box head and 100 for the mask head.

    Args:
        cfg (Config): Config of a classifier or detector, with ``default_scope``.
        size (tuple[int, int], optional): Height and width of the image. Default: 32x32 pixels
            (CIFAR), 224x224 (other classifiers), 800x1280 (detectors), 1024x1024 (oriented boxes),
            that of the training crops (segmentation) or that of a person (keypoints).

    Returns:
        Complexity: Of the model.
    """
    return measure_shares(cfg, size)[0]


def measure_shares(
    cfg: Config, size: tuple[int, int] | None = None
) -> tuple[Complexity, list[Share], Share]:
    """Count a model as :func:`measure` does, and its parts.

    Returns:
        tuple[Complexity, list[Share], Share]: The model, its parts, which add up to it, and the
        layer attentions of all stages, which are in the backbone.
    """
    model, size = build_on_meta(cfg).eval(), size or input_size(cfg)
    forward = FORWARDS.get(cfg.default_scope, nn.Module.__call__)
    parts = _parts(model)
    counter = MacCounter(model, parts)
    with torch.no_grad(), counter:
        forward(model, torch.empty(1, 3, *size, device='meta'))
    shares = [Share(name, parameters(part), counter.shares[name]) for name, part in parts.items()]
    attentions = [stage.attention for stage in counter.stages if stage.attention is not None]
    attention = Share(ATTENTION, sum(map(parameters, attentions)), counter.shares[ATTENTION])
    return Complexity(parameters(model), counter.total, size), shares, attention


def build_on_meta(cfg: Config) -> nn.Module:
    """Return the model of a config, without memory for its parameters."""
    model_cfg = deepcopy(cfg.model)
    model_cfg.pop('data_preprocessor', None)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        try:
            with torch.device('meta'):
                return MODELS.build(deepcopy(model_cfg))
        except (RuntimeError, ValueError):  # Swin and PVT read drop path rates from a tensor
            return MODELS.build(model_cfg).to('meta')


def input_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the images that a config's model is counted with."""
    if cfg.default_scope == 'mmdet':
        return SIZES['detector']
    if cfg.default_scope == 'mmrotate':
        return SIZES['oriented']
    if cfg.default_scope == 'mmpose':
        width, height = cfg.model.head.decoder.input_size
        return height, width
    if cfg.default_scope == 'mmseg':
        return tuple(cfg.data_preprocessor.size)
    return SIZES['cifar' if 'CIFAR' in type_name(cfg.model.backbone.type) else 'imagenet']


def count_macs(model: nn.Module, forward: Callable[[Tensor], object], size: tuple[int, int]) -> int:
    """Multiply-adds of ``forward`` with one image, (1, 3, *size), on the meta device."""
    with torch.no_grad(), MacCounter(model) as counter:
        forward(torch.empty(1, 3, *size, device='meta'))
    return counter.total


def parameters(module: nn.Module) -> int:
    """Return how many numbers the parameters of a module are."""
    return sum(p.numel() for p in module.parameters())


def _parts(model: nn.Module) -> dict[str, nn.Module]:
    """Backbone, neck and heads, by name."""
    parts = {}
    for name, child in model.named_children():
        if name == 'roi_head':  # it is not called as a whole
            heads = {f'{name}.{sub}': head for sub, head in child.named_children()}
            parts.update({sub: head for sub, head in heads.items() if parameters(head)})
        elif name != 'data_preprocessor':
            parts[name] = child
    return parts


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


def run_pose_estimator(model: nn.Module, images: Tensor) -> object:
    """Run a pose estimator of MMPose, which takes the persons' data too."""
    return model(images, None)


FORWARDS = dict(mmdet=run_detector, mmrotate=run_detector, mmpose=run_pose_estimator)
