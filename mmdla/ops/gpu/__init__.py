"""The kernels in Triton, for GPUs: the same functions as the compiled ones of the CPU.

Here maps are NCHW or channels_last, in float64, float32, float16 or bfloat16; what is summed or
weighted is kept in float32 at least. Sums go over programs in a fixed order, so that a result does
not change from run to run.
"""

from .join import join_backward, join_backward_in_place, join_forward, join_pooled
from .two_convs import (
    two_convs_backward,
    two_convs_backward_normed,
    two_convs_correlate,
    two_convs_forward,
    two_convs_joined,
    two_convs_moments,
)
from .weighted_sum import (
    add_rectified,
    add_rectified_sum,
    rectified_gradient,
    rectified_products,
    weighted_sum,
    weighted_sum_moments,
)

__all__ = [
    'add_rectified',
    'add_rectified_sum',
    'join_backward',
    'join_backward_in_place',
    'join_forward',
    'join_pooled',
    'rectified_gradient',
    'rectified_products',
    'two_convs_backward',
    'two_convs_backward_normed',
    'two_convs_correlate',
    'two_convs_forward',
    'two_convs_joined',
    'two_convs_moments',
    'weighted_sum',
    'weighted_sum_moments',
]
