r"""The sum over the blocks so far that base layer attention adds to a block:

.. math::
    o = \sum_m w_m \odot v_m, \qquad
    \mathrm{out} = x + \mathrm{keep} \odot \mathrm{ReLU}(\mathrm{factor} \odot o + \mathrm{shift})
    \quad\text{or}\quad x + \mathrm{keep} \odot \mathrm{ReLU}(\mathrm{BN}(o))

Maps x, v_m: (B, C, H, W), weights (B, m, C); keep, factor, shift: (B, C). The backward pass reads
the maps once for everything about them and keeps nothing but them. The gradients of the maps go by
the tokens of :mod:`mmdla.ops.carried`; ``values`` themselves get none.
"""

import torch
from torch import Tensor

from .backend import as_vectors, at_least_float32, match_memory_format
from .batch_norm import BatchNormBackward, combine
from .carried import weighted_sum_reference
from .library import define, is_differentiated


def _planes(v: Tensor) -> Tensor:
    return v[..., None, None]  # (B, C) to (B, C, 1, 1)


def _sum(weights: Tensor, values: list[Tensor]) -> Tensor:
    dtype = at_least_float32(values[0].dtype)
    return weighted_sum_reference(weights.to(dtype), [v.to(dtype) for v in values])


def _products(g, weights, values, factor, shift) -> tuple[Tensor, ...]:
    """``t``, its products with every map and with ``o``, and ``o``, of :func:`relu_products`."""
    o = _sum(weights, values)  # (B, C, H, W)
    t = torch.where(_planes(factor) * o + _planes(shift) > 0, g.to(o.dtype), 0.0)
    dots, dots_o, sums = (
        torch.stack([(u * v).sum((2, 3)) for v in values], 1) for u in (t, o, torch.ones_like(o))
    )  # 3 x (B, m, C)
    return dots, dots_o, sums, t.sum((2, 3)), (t * o).sum((2, 3)), o, t


# with a scale and a shift


def _reference(x, weights, values, map_token, weight_token, keep, factor, shift) -> Tensor:
    z = (_planes(factor) * _sum(weights, values) + _planes(shift)).relu()
    return (x + _planes(keep) * z).to(x.dtype)


def _kernel(kernels, x, weights, values, map_token, weight_token, keep, factor, shift) -> Tensor:
    weights, factor, shift, keep = as_vectors(x, weights, factor, shift, keep)
    return kernels.weighted_sum_relu_add(x, weights, values, factor, shift, keep, False)


def _setup_context(ctx, inputs, output) -> None:
    _, weights, values, _, _, keep, factor, shift = inputs
    ctx.save_for_backward(weights, keep, factor, shift, *values)
    ctx.set_materialize_grads(False)


def _backward(ctx, g):
    weights, keep, factor, shift, *values = ctx.saved_tensors
    nothing = [None] * len(values)
    if g is None:
        return None, None, nothing, None, None, None, None, None
    gradients = _backward_reference if is_differentiated(g) else weighted_sum_relu_add_backward
    dweights, *vectors, do = gradients(g, weights, values, keep, factor, shift)
    return g, dweights, nothing, do, weights, *vectors


def _backward_reference(g, weights, values, keep, factor, shift) -> tuple[Tensor, ...]:
    dots, _, _, total, with_o, _, t = _products(g, weights, values, factor, shift)
    alpha = keep * factor  # (B, C)
    dkeep = factor * with_o + shift * total  # (B, C)
    do = (_planes(alpha) * t).to(g.dtype)
    return alpha.unsqueeze(1) * dots, dkeep, keep * with_o, keep * total, do


def _backward_kernel(kernels, g, weights, values, keep, factor, shift) -> tuple[Tensor, ...]:
    g = match_memory_format(g, values[0])
    weights, keep, factor, shift = as_vectors(g, weights, keep, factor, shift)
    dots, _, _, total, with_o, o = kernels.relu_products(g, weights, values, factor, shift)
    alpha, zero = keep * factor, torch.zeros_like(keep)
    do = kernels.relu_gradient(o, g, factor, shift, alpha, zero, zero)  # in the place of o
    dkeep = factor * with_o + shift * total  # (B, C)
    return alpha.unsqueeze(1) * dots, dkeep, keep * with_o, keep * total, do


def _backward_fake(g, weights, values, keep, factor, shift) -> tuple[Tensor, ...]:
    return *(torch.empty_like(v) for v in (weights, keep, factor, shift)), torch.empty_like(
        values[0]
    )


weighted_sum_relu_add_backward = define(
    'weighted_sum_relu_add_backward(Tensor g, Tensor weights, Tensor[] values, Tensor keep,'
    ' Tensor factor, Tensor shift) -> (Tensor, Tensor, Tensor, Tensor, Tensor)',
    maps=lambda g, weights, values, *_: values,
    reference=_backward_reference,
    kernel=_backward_kernel,
    fake=_backward_fake,
)
weighted_sum_relu_add = define(
    'weighted_sum_relu_add(Tensor x, Tensor weights, Tensor[] values, Tensor map_token,'
    ' Tensor weight_token, Tensor keep, Tensor factor, Tensor shift) -> Tensor',
    maps=lambda x, weights, values, *_: (x, *values),
    reference=_reference,
    kernel=_kernel,
    fake=lambda x, *_: torch.empty_like(x),
    setup_context=_setup_context,
    backward=_backward,
)


# with the statistics of the batch


def _bn_affine(keep, weight, bias, mean, var, eps) -> tuple[Tensor, Tensor]:
    """Scale and shift of the norm as (B, C), like ``keep``."""
    factor = weight * (var + eps).rsqrt()  # (C,)
    shift = bias - factor * mean  # (C,)
    return factor.expand_as(keep), shift.expand_as(keep)


def _bn_reference(x, weights, values, map_token, weight_token, keep, weight, bias, eps):
    o = _sum(weights, values)  # (B, C, H, W)
    var, mean = torch.var_mean(o, (0, 2, 3), unbiased=False)  # 2 x (C,)
    factor, shift = _bn_affine(keep, weight, bias, mean, var, eps)
    z = (_planes(factor) * o + _planes(shift)).relu()
    return (x + _planes(keep) * z).to(x.dtype), mean, var


def _bn_kernel(kernels, x, weights, values, map_token, weight_token, keep, weight, bias, eps):
    weights, keep, weight, bias = as_vectors(x, weights, keep, weight, bias)
    means, m2, o = kernels.weighted_sum_moments(weights, values)
    mean, var = combine(means, m2, x.shape[2] * x.shape[3])  # 2 x (C,)
    factor, shift = (v.contiguous() for v in _bn_affine(keep, weight, bias, mean, var, eps))
    return kernels.relu_add(x, o, factor, shift, keep), mean, var


def _bn_fake(x, weights, values, map_token, weight_token, keep, weight, bias, eps):
    vectors = (x.new_empty(x.shape[1], dtype=at_least_float32(x.dtype)) for _ in range(2))
    return torch.empty_like(x), *vectors


def _bn_setup_context(ctx, inputs, output) -> None:
    _, weights, values, _, _, keep, weight, bias, ctx.eps = inputs
    _, mean, var = output
    ctx.mark_non_differentiable(mean, var)
    ctx.save_for_backward(weights, keep, weight, bias, mean, var, *values)
    ctx.set_materialize_grads(False)


def _bn_backward(ctx, g, _mean, _var):
    weights, keep, weight, bias, mean, var, *values = ctx.saved_tensors
    nothing = [None] * len(values)
    if g is None:
        return None, None, nothing, None, None, None, None, None, None
    gradients = (
        _bn_backward_reference if is_differentiated(g) else weighted_sum_bn_relu_add_backward
    )
    dweights, *vectors, do = gradients(g, weights, values, keep, weight, bias, mean, var, ctx.eps)
    return g, dweights, nothing, do, weights, *vectors, None


def _bn_gradients(products, keep, weight, mean, var, eps, factor, shift, count):
    """Gradients of the vectors, and the factors of :class:`BatchNormBackward`."""
    dots, dots_o, sums, total, with_o = products
    norm = BatchNormBackward(total, with_o, keep, weight, mean, (var + eps).rsqrt(), count)
    alpha, beta, gamma = (v.unsqueeze(1) for v in (norm.alpha, norm.beta, norm.gamma))
    dweights = alpha * dots + beta * dots_o + gamma * sums  # (B, m, C)
    dkeep = factor * with_o + shift * total  # (B, C)
    return (dweights, dkeep, norm.weight, norm.bias), (norm.alpha, norm.beta, norm.gamma)


def _bn_backward_reference(g, weights, values, keep, weight, bias, mean, var, eps):
    o = _sum(weights, values)
    var, mean = torch.var_mean(o, (0, 2, 3), unbiased=False)  # anew, since they depend on values
    factor, shift = _bn_affine(keep, weight, bias, mean, var, eps)
    *products, o, t = _products(g, weights, values, factor, shift)
    count = g.numel() // g.shape[1]
    vectors, factors = _bn_gradients(products, keep, weight, mean, var, eps, factor, shift, count)
    alpha, beta, gamma = (_planes(v) for v in factors)
    return *vectors, (alpha * t + beta * o + gamma).to(g.dtype)


def _bn_backward_kernel(kernels, g, weights, values, keep, weight, bias, mean, var, eps):
    g = match_memory_format(g, values[0])
    weights, keep, weight, bias = as_vectors(g, weights, keep, weight, bias)
    factor, shift = (v.contiguous() for v in _bn_affine(keep, weight, bias, mean, var, eps))
    *products, o = kernels.relu_products(g, weights, values, factor, shift)
    count = g.numel() // g.shape[1]
    vectors, factors = _bn_gradients(products, keep, weight, mean, var, eps, factor, shift, count)
    return *vectors, kernels.relu_gradient(o, g, factor, shift, *factors)  # in the place of o


def _bn_backward_fake(g, weights, values, keep, weight, bias, mean, var, eps):
    vectors = (torch.empty_like(v) for v in (weights, keep, weight, bias))
    return *vectors, torch.empty_like(values[0])


weighted_sum_bn_relu_add_backward = define(
    'weighted_sum_bn_relu_add_backward(Tensor g, Tensor weights, Tensor[] values, Tensor keep,'
    ' Tensor weight, Tensor bias, Tensor mean, Tensor var, float eps)'
    ' -> (Tensor, Tensor, Tensor, Tensor, Tensor)',
    maps=lambda g, weights, values, *_: values,
    reference=_bn_backward_reference,
    kernel=_bn_backward_kernel,
    fake=_bn_backward_fake,
)
weighted_sum_bn_relu_add = define(
    'weighted_sum_bn_relu_add(Tensor x, Tensor weights, Tensor[] values, Tensor map_token,'
    ' Tensor weight_token, Tensor keep, Tensor weight, Tensor bias, float eps)'
    ' -> (Tensor, Tensor, Tensor)',
    maps=lambda x, weights, values, *_: (x, *values),
    reference=_bn_reference,
    kernel=_bn_kernel,
    fake=_bn_fake,
    setup_context=_bn_setup_context,
    backward=_bn_backward,
)
