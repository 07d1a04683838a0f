"""Layer attentions, one instance per ResNet stage. To add one, see :class:`LayerAttention`."""

from .build import build_layer_attention, known_types
from .channel import ECA, SE
from .dia import DIALSTM
from .full import DLABase, MRLABase
from .interface import LayerAttention
from .light import DLALight, MRLALight

__all__ = [
    'DIALSTM',
    'ECA',
    'SE',
    'DLABase',
    'DLALight',
    'LayerAttention',
    'MRLABase',
    'MRLALight',
    'build_layer_attention',
    'known_types',
]
