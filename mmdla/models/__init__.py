"""Models: the recurrent unit, the layer attentions and the backbones."""

from .dsu import DSU
from .layer_attention import (
    DIALSTM,
    ECA,
    KCLA,
    RLA,
    SE,
    DLABase,
    DLALight,
    LayerAttention,
    MRLABase,
    MRLALight,
)
from .resnet import DLAResNet, DLAResNet_CIFAR, DLAResNetV1c, DLAResNetV1d, DLAResNeXt
from .wrapper import MRLABaseTokens, MRLALightTokens, TokenAttention, WithLayerAttention

__all__ = [
    'DIALSTM',
    'DSU',
    'ECA',
    'KCLA',
    'RLA',
    'SE',
    'DLABase',
    'DLALight',
    'DLAResNeXt',
    'DLAResNet',
    'DLAResNetV1c',
    'DLAResNetV1d',
    'DLAResNet_CIFAR',
    'LayerAttention',
    'MRLABase',
    'MRLABaseTokens',
    'MRLALight',
    'MRLALightTokens',
    'TokenAttention',
    'WithLayerAttention',
]
