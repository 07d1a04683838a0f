"""The numerics of layer attention: a plain PyTorch reference of each, and a faster twin."""

from .choice import OPS, check_ops
from .full import Pending, full_attention
from .join import join, join_pools
from .light import Weights, fuses_join, light_attention, light_attention_of_join

__all__ = [
    'OPS',
    'Pending',
    'Weights',
    'check_ops',
    'full_attention',
    'fuses_join',
    'join',
    'join_pools',
    'light_attention',
    'light_attention_of_join',
]
