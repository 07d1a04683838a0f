"""The numerics of layer attention: a plain PyTorch reference of each, and a faster twin."""

from .choice import OPS, check_ops, takes_fast_path
from .full import Pending, full_attention
from .join import join, join_normed, pools_of_join
from .light import Weights, light_attention, light_attention_of_join
from .norm import is_fixed_affine
from .value import value_map

__all__ = [
    'OPS',
    'Pending',
    'Weights',
    'check_ops',
    'full_attention',
    'is_fixed_affine',
    'join',
    'join_normed',
    'light_attention',
    'light_attention_of_join',
    'pools_of_join',
    'takes_fast_path',
    'value_map',
]
