r"""A block with light layer attention at inference, all norms with running statistics:

.. math::
    x = \mathrm{ReLU}(\mathrm{norm}(r) + s), \qquad
    \mathrm{out} = x + \mathrm{keep} \odot \mathrm{norm}'(a \odot V(x) + \lambda (d \odot s + E(s)))

from the residual ``r`` and the shortcut ``s``, both (B, C, H, W), without forming ``x``. The other
arguments are those of :mod:`mmdla.ops.light_coefficients`; ``last_norm`` (empty for none) and
``last_eps`` are the norm that the residual has yet to pass. Without gradients.
"""

import torch
from torch import Tensor

from .add_relu_pool import affine_add_relu, pool
from .backend import as_vectors, at_least_float32
from .batch_norm import rounded_affine
from .dual_dwconv import dual_dwconv_reference
from .library import define
from .light_coefficients import ARGUMENTS, Inputs, light_coefficients

OTHERS = ARGUMENTS.removeprefix('Tensor y, Tensor? y_shortcut, ')


def _reference(r, s, last_norm, last_eps, *rest) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = affine_add_relu(r, s, *rounded_affine(last_norm, last_eps, r))  # (B, C, H, W)
    kx, ks, bias, *state = light_coefficients(pool(x), pool(s), *rest)
    return dual_dwconv_reference(x, s, None, kx, ks, bias), *state


def _kernel(kernels, in_place, r, s, last_norm, last_eps, *rest):
    if hasattr(kernels, 'light_block'):
        return kernels.light_block(r, s, last_norm, last_eps, *rest, in_place)
    affine = rounded_affine(last_norm, last_eps, r)  # 2 x (B, C)
    pooled = as_vectors(r, *kernels.pool_add_relu(r, s, *affine))  # 2 x (B, C)
    *folded, h, c, u = light_coefficients(*pooled, *rest)
    out = kernels.dual_dwconv_of_add_relu(r, s, *affine, *as_vectors(r, *folded), in_place)
    return out, h, c, u


def _fake(r, s, last_norm, last_eps, *rest) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    n = Inputs(r, None, *rest)
    batch, channels = r.shape[:2]
    sizes = [(0,)] * 3 if n.extract is None else [(batch, channels)] * 2 + [(batch, 3 * channels)]
    dtype = at_least_float32(r.dtype)
    return torch.empty_like(r), *(r.new_empty(size, dtype=dtype) for size in sizes)


def _reference_(r, *args) -> tuple[Tensor, Tensor, Tensor]:
    out, *state = _reference(r, *args)
    r.copy_(out)
    return tuple(state)


light_block = define(
    f'light_block(Tensor r, Tensor s, Tensor[] last_norm, float last_eps, {OTHERS})'
    ' -> (Tensor, Tensor, Tensor, Tensor)',
    maps=lambda r, s, *_: (r, s),
    reference=_reference,
    kernel=lambda kernels, *args: _kernel(kernels, False, *args),
    fake=_fake,
)
light_block_ = define(  # in the place of r
    f'light_block_(Tensor(a!) r, Tensor s, Tensor[] last_norm, float last_eps, {OTHERS})'
    ' -> (Tensor, Tensor, Tensor)',
    maps=lambda r, s, *_: (r, s),
    reference=_reference_,
    kernel=lambda kernels, *args: _kernel(kernels, True, *args)[1:],
    fake=lambda *args: _fake(*args)[1:],
)
