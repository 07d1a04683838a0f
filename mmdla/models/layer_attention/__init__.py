"""Layer attentions, one instance per ResNet stage. To add one, see :class:`LayerAttention`."""

from .build import build_layer_attention
from .interface import LayerAttention
from .light import DLALight, MRLALight

__all__ = ['DLALight', 'LayerAttention', 'MRLALight', 'build_layer_attention']
