"""ResNet backbones."""

from .blocks import BasicBlock, Bottleneck
from .cifar import DLAResNet_CIFAR
from .resnet import DLAResNet
from .stage import ResStage

__all__ = ['BasicBlock', 'Bottleneck', 'DLAResNet', 'DLAResNet_CIFAR', 'ResStage']
