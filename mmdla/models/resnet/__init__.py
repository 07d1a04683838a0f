"""ResNet backbones."""

from .blocks import BasicBlock, Bottleneck
from .resnet import DLAResNet
from .stage import ResStage

__all__ = ['BasicBlock', 'Bottleneck', 'DLAResNet', 'ResStage']
