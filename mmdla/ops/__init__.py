"""The operations of layer attention, ``torch.ops.mmdla.*``: one file for each, see ``library``."""

from .add_relu_pool import (
    add_relu_pool,
    affine_add_relu_pool,
    affine_add_relu_pool_,
    affine_of,
    pool_affine_add_relu,
)
from .carried import carry_gradients, new_tokens, weighted_sum
from .choice import OPS, check_ops, kernels_run
from .dual_dwconv import (
    dual_dwconv,
    dual_dwconv_bn,
    dual_dwconv_of_add_relu,
    dual_dwconv_of_add_relu_,
    plus_identity,
)
from .dwconv_pool import dwconv_pool
from .weighted_sum import (
    weighted_sum_bn_relu_add,
    weighted_sum_relu_add,
    weighted_sum_relu_add_,
)

__all__ = [
    'OPS',
    'add_relu_pool',
    'affine_add_relu_pool',
    'affine_add_relu_pool_',
    'affine_of',
    'carry_gradients',
    'check_ops',
    'dual_dwconv',
    'dual_dwconv_bn',
    'dual_dwconv_of_add_relu',
    'dual_dwconv_of_add_relu_',
    'dwconv_pool',
    'kernels_run',
    'new_tokens',
    'plus_identity',
    'pool_affine_add_relu',
    'weighted_sum',
    'weighted_sum_bn_relu_add',
    'weighted_sum_relu_add',
    'weighted_sum_relu_add_',
]
