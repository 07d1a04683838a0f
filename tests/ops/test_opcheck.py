"""PyTorch's own check of operations: schema, fake tensors, autograd registration, AOT tracing."""

import inspect

import pytest
import torch
from samples import IN_PLACE, NAMES, UNTRAINED, Maker, arguments, operation
from torch._subclasses import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_unflatten

BACKWARD = {
    'add_relu_pool_backward': lambda m: [
        m.map(), m.vector(m.batch, m.channels), m.vector(m.batch, m.channels), m.map(), m.map()
    ],
    'dwconv_pool_backward': lambda m: [
        m.map(), m.vector(m.batch, m.channels), m.map(), m.vector(m.channels, 1, 3, 3)
    ],
    'dual_dwconv_backward': lambda m: [m.map(), *_picked('dual_dwconv', m, 0, 1, 3, 4)],
    'dual_dwconv_bn_backward': lambda m: [
        m.map(), *_picked('dual_dwconv_bn', m, 0, 1, 3, 4, 5, 7),
        m.vector(m.channels), m.positive(m.channels), 1e-3,
    ],
    'light_coefficients_backward': lambda m: [
        m.vector(m.batch, m.channels, 9), None, m.vector(m.batch, m.channels), None,
        m.vector(m.batch, m.channels), m.vector(m.batch, 3 * m.channels),
        *arguments('light_coefficients', m),
    ],
    'base_coefficients_backward': lambda m: [
        m.vector(m.batch, 3, m.channels), None, m.vector(m.batch, 3, m.channels), None,
        None, m.vector(m.batch, m.channels), m.vector(m.batch, 3 * m.channels),
        *arguments('base_coefficients', m),
    ],
    'weighted_sum_relu_add_backward': lambda m: [
        m.map(), *_picked('weighted_sum_relu_add', m, 1, 2, 5, 6, 7)
    ],
    'weighted_sum_bn_relu_add_backward': lambda m: [
        m.map(), *_picked('weighted_sum_bn_relu_add', m, 1, 2, 5, 6, 7),
        m.vector(m.channels), m.positive(m.channels), 1e-3,
    ],
}  # fmt: skip
FORWARD_TESTS = ('test_schema', 'test_autograd_registration', 'test_faketensor')


def _picked(name, make, *positions):
    args = arguments(name, make)
    return [args[i] for i in positions]


def made(name, dtype, layout):
    make = Maker((2, 4, 6, 5), dtype, layout)
    return BACKWARD[name](make) if name in BACKWARD else arguments(name, make)


def with_gradients(args):
    flat, spec = tree_flatten(args)
    flat = [
        v.requires_grad_() if isinstance(v, torch.Tensor) and v.is_floating_point() else v
        for v in flat
    ]
    return tree_unflatten(flat, spec)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', [*NAMES, *IN_PLACE, *BACKWARD])
def test_opcheck(name, dtype):
    for layout in (torch.contiguous_format, torch.channels_last):
        args = made(name, dtype, layout)
        if name in NAMES and name not in UNTRAINED:
            args = with_gradients(args)
        torch.library.opcheck(operation(name), tuple(args), test_utils=FORWARD_TESTS)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize('name', [*NAMES, *BACKWARD])
def test_fake_results_have_the_real_layout(name, layout):
    args = made(name, torch.float64, layout)
    with FakeTensorMode() as mode:
        flat, spec = tree_flatten(args)
        fake = [mode.from_tensor(v) if isinstance(v, torch.Tensor) else v for v in flat]
        fakes = tree_flatten(operation(name)(*tree_unflatten(fake, spec)))[0]
    reals = tree_flatten(operation(name)(*args))[0]
    for a, b in zip(fakes, reals, strict=True):
        if isinstance(b, torch.Tensor):
            assert (a.shape, a.dtype, a.stride()) == (b.shape, b.dtype, b.stride())


# PyTorch 2.4 has none to be given, and another default
TAKES_TOLERANCE = 'atol' in inspect.signature(torch.library.opcheck).parameters
TOLERANCE = dict(atol=1e-6, rtol=1e-5) if TAKES_TOLERANCE else {}


@pytest.mark.parametrize('name', [*NAMES, *IN_PLACE])
def test_traced_ahead_of_time(name):
    args = made(name, torch.float64, torch.contiguous_format)
    if name in NAMES and name not in UNTRAINED:
        args = with_gradients(args)
    tests = ('test_aot_dispatch_dynamic',)
    torch.library.opcheck(operation(name), tuple(args), test_utils=tests, **TOLERANCE)
