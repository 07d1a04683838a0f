"""The numerics of layer attention: a plain PyTorch reference of each, and a faster twin."""

from .choice import OPS, check_ops
from .full import Pending, full_attention
from .join import join
from .light import Weights, light_attention

__all__ = [
    'OPS',
    'Pending',
    'Weights',
    'check_ops',
    'full_attention',
    'join',
    'light_attention',
]
