"""Models: the recurrent unit, the layer attentions and the backbones."""

from .dsu import DSU
from .layer_attention import DLALight, LayerAttention, MRLALight
from .resnet import DLAResNet

__all__ = ['DLALight', 'DLAResNet', 'DSU', 'LayerAttention', 'MRLALight']
