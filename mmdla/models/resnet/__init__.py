"""ResNet backbones."""

from .blocks import BasicBlock, Bottleneck
from .cifar import DLAResNet_CIFAR
from .resnet import DLAResNet
from .stage import ResStage
from .variants import DLAResNetV1c, DLAResNetV1d, DLAResNeXt

__all__ = [
    'BasicBlock',
    'Bottleneck',
    'DLAResNeXt',
    'DLAResNet',
    'DLAResNetV1c',
    'DLAResNetV1d',
    'DLAResNet_CIFAR',
    'ResStage',
]
