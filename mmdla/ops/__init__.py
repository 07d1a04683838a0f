"""The operations of layer attention, ``torch.ops.mmdla.*``: one file for each, see ``library``."""

from .add_relu_pool import (
    add_relu_pool,
    affine_add_relu_pool,
)
from .base_block import base_block, base_block_
from .base_coefficients import base_coefficients
from .carried import carry_gradients, new_tokens, weighted_sum
from .choice import OPS, check_ops, kernels_run
from .dual_dwconv import (
    dual_dwconv,
    dual_dwconv_bn,
)
from .dwconv_pool import dwconv_pool
from .light_block import light_block, light_block_
from .light_coefficients import light_coefficients
from .weighted_sum import (
    weighted_sum_bn_relu_add,
    weighted_sum_relu_add,
)

__all__ = [
    'OPS',
    'add_relu_pool',
    'affine_add_relu_pool',
    'base_block',
    'base_block_',
    'base_coefficients',
    'carry_gradients',
    'check_ops',
    'dual_dwconv',
    'dual_dwconv_bn',
    'dwconv_pool',
    'kernels_run',
    'light_block',
    'light_block_',
    'light_coefficients',
    'new_tokens',
    'weighted_sum',
    'weighted_sum_bn_relu_add',
    'weighted_sum_relu_add',
]
