"""The numerics of layer attention: a plain PyTorch reference of each, and a faster twin."""

from .choice import OPS, check_ops, forced_ops
from .light import light_attention

__all__ = ['OPS', 'check_ops', 'forced_ops', 'light_attention']
