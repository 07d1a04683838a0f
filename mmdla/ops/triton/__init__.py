"""The kernels in Triton, for GPUs: the same functions as the compiled ones of the CPU.

Here maps are NCHW or channels_last, in float64, float32, float16 or bfloat16; what is summed or
weighted is kept in float32 at least. Sums go over programs in a fixed order, so that a result does
not change from run to run.
"""

from .add_relu_pool import add_relu_pool, add_relu_pool_backward, pool_add_relu
from .dual_dwconv import (
    dual_dwconv,
    dual_dwconv_backward,
    dual_dwconv_backward_normed,
    dual_dwconv_correlate,
    dual_dwconv_moments,
    dual_dwconv_of_add_relu,
)
from .weighted_sum import (
    relu_add,
    relu_gradient,
    relu_products,
    weighted_sum,
    weighted_sum_moments,
    weighted_sum_relu_add,
)

__all__ = [
    'add_relu_pool',
    'add_relu_pool_backward',
    'dual_dwconv',
    'dual_dwconv_backward',
    'dual_dwconv_backward_normed',
    'dual_dwconv_correlate',
    'dual_dwconv_moments',
    'dual_dwconv_of_add_relu',
    'pool_add_relu',
    'relu_add',
    'relu_gradient',
    'relu_products',
    'weighted_sum',
    'weighted_sum_moments',
    'weighted_sum_relu_add',
]
