r"""A block with base layer attention at inference, all norms with running statistics:

.. math::
    x = \mathrm{ReLU}(\mathrm{norm}(r) + s), \quad v = V(x), \quad
    \mathrm{out} = x + \mathrm{keep} \odot \mathrm{scale} \odot
        \mathrm{ReLU}(\mathrm{norm}'(\textstyle\sum_m w_m \odot v_m))

from the residual ``r`` and the shortcut ``s``, both (B, C, H, W), over the value maps of the blocks
before (``values``) and ``v``. ``last_norm`` (empty for none) and ``last_eps`` are the norm that the
residual has yet to pass, ``norm`` and ``eps`` that of the attention; ``keep`` (B, 1) and ``scale``
(C, 1, 1) may be ``None`` for 1. The other arguments and the results behind the maps are those of
:mod:`mmdla.ops.base_coefficients`. Without gradients.
"""

import torch
from torch import Tensor

from .add_relu_pool import affine_add_relu, pool
from .backend import as_vectors
from .base_coefficients import ARGUMENTS, base_coefficients
from .base_coefficients import Inputs as Coefficients
from .batch_norm import affine_of, rounded_affine
from .carried import weighted_sum_reference
from .dwconv_pool import dwconv_pool
from .library import define

OTHERS = ARGUMENTS.removeprefix('Tensor y, Tensor pooling, ')


def _branch(x: Tensor, norm, eps, keep, scale) -> list[Tensor]:
    """Scale and shift of the norm and the factor behind the ReLU, 3 x (B, C)."""
    size = x.shape[:2]
    kept = x.new_ones(1, 1) if keep is None else keep  # (B, 1)
    kept = kept if scale is None else kept * scale.view(1, -1)  # (B, C)
    return as_vectors(x, *(v.expand(size) for v in (*affine_of(norm, eps), kept)))


def _reference(r, s, last_norm, last_eps, value, values, norm, eps, keep, scale, *rest):
    x = affine_add_relu(r, s, *rounded_affine(last_norm, last_eps, r))  # (B, C, H, W)
    v, pooled = dwconv_pool(x, value)  # (B, C, H, W), (B, C)
    weights, *state = base_coefficients(pool(x), pooled, *rest)  # (B, m, C)
    factor, shift, kept = (t[..., None, None] for t in _branch(x, norm, eps, keep, scale))
    o = weighted_sum_reference(weights, [t.to(weights.dtype) for t in (*values, v)])
    return (x + kept * (factor * o + shift).relu()).to(x.dtype), v, *state


def _kernel(kernels, in_place, r, s, last_norm, last_eps, *others):
    if hasattr(kernels, 'base_block'):
        return kernels.base_block(r, s, last_norm, last_eps, *others, in_place)
    value, values, norm, eps, keep, scale, *rest = others
    x, y, _ = kernels.add_relu_pool(r, s, *rounded_affine(last_norm, last_eps, r), in_place)
    v, pooled = dwconv_pool(x, value)  # (B, C, H, W), (B, C)
    weights, *state = base_coefficients(y, pooled, *rest)  # (B, m, C)
    branch = _branch(x, norm, eps, keep, scale)  # 3 x (B, C)
    out = kernels.weighted_sum_relu_add(x, *as_vectors(x, weights), [*values, v], *branch, True)
    return out, v, *state


def _fake(r, s, last_norm, last_eps, value, values, norm, eps, keep, scale, *rest):
    n = Coefficients(None, None, *rest)
    batch, channels = r.shape[:2]
    blocks = [(batch, n.keys.shape[1] + 1, channels)] * 3
    state = [(batch, channels)] * 2 + [(batch, 3 * channels)] if n.dsu else [(0,)] * 3
    dtype = torch.promote_types(r.dtype, torch.float32)
    vectors = (r.new_empty(size, dtype=dtype) for size in (*blocks, *state))
    return torch.empty_like(r), torch.empty_like(r), *vectors


def _reference_(r, *args) -> tuple[Tensor, ...]:
    out, *others = _reference(r, *args)
    r.copy_(out)
    return tuple(others)


_SCHEMA = (
    ' r, Tensor s, Tensor[] last_norm, float last_eps, Tensor value, Tensor[] values,'
    f' Tensor[] norm, float eps, Tensor? keep, Tensor? scale, {OTHERS})'
)
_STATE = 'Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor'


def _maps(r, s, last_norm, last_eps, value, values, *_) -> tuple[Tensor, ...]:
    return r, s, *values


base_block = define(
    f'base_block(Tensor{_SCHEMA} -> (Tensor, {_STATE})',
    maps=_maps,
    reference=_reference,
    kernel=lambda kernels, *args: _kernel(kernels, False, *args),
    fake=_fake,
)
base_block_ = define(  # in the place of r
    f'base_block_(Tensor(a!){_SCHEMA} -> ({_STATE})',
    maps=_maps,
    reference=_reference_,
    kernel=lambda kernels, *args: _kernel(kernels, True, *args)[1:],
    fake=lambda *args: _fake(*args)[1:],
)
