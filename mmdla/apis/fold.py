"""Models for deployment."""

import copy

from mmcv.cnn.utils.fuse_conv_bn import fuse_conv_bn
from torch import nn


def fold_for_inference(model: nn.Module) -> nn.Module:
    """Return a copy of a model with every norm folded into the convolution before it.

    The outputs equal those of ``model.eval()`` to 1e-5. What is left of batch norm, in the layer
    attentions, is folded per forward pass into vectors of channels. RLA adds to the output of a
    block's first convolution; the norm behind that sum stays.

    Args:
        model (nn.Module): A backbone of ours, or a whole detector or classifier.

    Returns:
        nn.Module: In eval mode, for inference only. ``model`` is not changed.

    Example:
        >>> import torch
        >>> from mmdla import DLAResNet, fold_for_inference
        >>> model = fold_for_inference(DLAResNet(18, layer_attention=dict(type='DLALight')))
        >>> [out.shape[1] for out in model(torch.rand(1, 3, 64, 64))]
        [64, 128, 256, 512]
    """
    return fuse_conv_bn(copy.deepcopy(model).eval())
