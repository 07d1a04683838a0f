"""Layer attentions, one instance per ResNet stage. To add one, see :class:`LayerAttention`."""

from .base import DLABase, MRLABase
from .build import build_layer_attention, known_types
from .channel import ECA, SE
from .dia import DIALSTM
from .interface import LayerAttention
from .kcla import KCLA
from .light import DLALight, MRLALight
from .rla import RLA

__all__ = [
    'DIALSTM',
    'ECA',
    'KCLA',
    'RLA',
    'SE',
    'DLABase',
    'DLALight',
    'LayerAttention',
    'MRLABase',
    'MRLALight',
    'build_layer_attention',
    'known_types',
]
