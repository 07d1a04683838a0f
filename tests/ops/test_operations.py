"""Every operation: its kernels compute what its reference computes, and gradients are right."""

from importlib import import_module

import pytest
import torch
from samples import IN_PLACE, NAMES, SHAPES, SMALL, UNTRAINED, Maker, arguments, operation
from torch.utils._pytree import tree_flatten, tree_unflatten

from mmdla.ops import backend

TRAINED = [name for name in NAMES if name not in UNTRAINED]
OPTIONS = [
    dict(),
    dict(norm=False),
    dict(state=False),
    dict(unit=False),
    dict(first=True),
    dict(keep=False, state=False, first=True),
    dict(unit=False, norm=False),
]
OF_BASE = [
    dict(),
    dict(state=False),
    dict(unit=False),
    dict(first=True),
    dict(blocks=0, state=False),
    dict(blocks=0, first=True),
    dict(blocks=3, state=False, first=True),
]
LAYOUTS = pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc']
)


def options_of(name):
    if name == 'light_block':  # always with a norm
        return [options for options in OPTIONS if options.get('norm', True)]
    if name.startswith('base'):
        return OF_BASE
    return OPTIONS if name == 'light_coefficients' else [{}]


CASES = [(name, options) for name in NAMES for options in options_of(name)]
IDS = [f'{name}-{i}' for name in NAMES for i, _ in enumerate(options_of(name))]


def leaves(args):
    """The floating point tensors among the arguments, made leaves, and all arguments with them."""
    flat, spec = tree_flatten(args)
    flat = [v.detach() if isinstance(v, torch.Tensor) else v for v in flat]
    found = [v.requires_grad_() for v in flat if isinstance(v, torch.Tensor) and len(v.shape)]
    return found, tree_unflatten(flat, spec)


def tensors(out):
    return [t for t in tree_flatten(out)[0] if isinstance(t, torch.Tensor) and t.numel()]


def has_layout(found, layout):
    """Whether the maps among what an operation gave are in a layout; tokens have none."""
    maps = [t for t in found if t is not None and t.dim() == 4 and t.shape[2:] != (3, 3)]
    return all(t.is_contiguous(memory_format=layout) for t in maps if t.stride(3))


@pytest.fixture
def run(monkeypatch):
    """Call an operation with the kernels of a backend, or without any."""

    def call(name, args, kernels):
        with monkeypatch.context() as patch:
            if kernels == 'reference':
                patch.setattr(backend, 'kernels', lambda *_: None)
                patch.setattr(backend, 'vector_kernels', lambda *_: None)
            elif kernels == 'triton':  # interpreted
                patch.setitem(backend.BACKENDS, 'cpu', backend.BACKENDS['cuda'])
                patch.setattr(backend, 'vector_kernels', lambda *_: None)
            found, args = leaves(args)
            outs = tensors(operation(name)(*args))
            if name in TRAINED:
                make = Maker(SMALL, outs[0].dtype, seed=1)
                outs = [out for out in outs if out.requires_grad]
                cotangents = [torch.empty_like(out).copy_(make.vector(*out.shape)) for out in outs]
                grads = torch.autograd.grad(outs, found, cotangents, allow_unused=True)
                return [*outs, *grads]
            return outs

    return call


def assert_same(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            scale = max(1.0, b.abs().max().item())
            torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale)


OF_VECTORS = [(name, i, options) for (name, options), i in zip(CASES, IDS, strict=True)
              if name.endswith('coefficients')]  # fmt: skip


@pytest.mark.parametrize('create_graph', [False, True])
@pytest.mark.parametrize(
    ('name', 'options'), [(name, o) for name, _, o in OF_VECTORS], ids=[i for _, i, _ in OF_VECTORS]
)
def test_gradients_of_single_results(name, options, create_graph):
    """What takes no part in one has none, or a zero. By autograd of the reference."""
    reference = import_module(f'mmdla.ops.{name}')._reference
    args = arguments(name, Maker((2, 4, 3, 4)), **options)
    outs = len(tensors(operation(name)(*args)))
    absent = 0
    for index in range(outs):
        grads = []
        for call in (operation(name), reference):
            found, given = leaves(args)
            out = tensors(call(*given))[index]
            made = torch.autograd.grad(
                out.sum(), found, allow_unused=True, create_graph=create_graph
            )
            absent += sum(g is None for g in made)
            light = name == 'light_coefficients'
            fixed = [id(t) for t in (*given[10][2:], given[12])] if light else []
            pairs = [(t, g) for t, g in zip(found, made, strict=True) if id(t) not in fixed]
            pairs = [(t, g) for t, g in pairs if t.numel()]
            grads.append([torch.zeros_like(t) if g is None else g for t, g in pairs])
        assert_same(*grads, 1e-10)
    assert absent > outs


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize(('name', 'options'), CASES, ids=IDS)
@LAYOUTS
def test_compiled_kernels_equal_the_reference(layout, name, options, shape, run):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 3e-4)):
        args = arguments(name, Maker(shape, dtype, layout), **options)
        got = run(name, args, 'compiled')
        assert_same(got, run(name, args, 'reference'), tolerance)
        assert name == 'carry_gradients' or has_layout(got, layout)


@pytest.mark.parametrize(('name', 'options'), CASES, ids=IDS)
def test_same_bits_every_time(name, options, run):
    """Wherever the memory is that it works in: a resumed training ends in the same weights."""
    for dtype in (torch.float64, torch.float32):
        first = None
        for repeat in range(12):
            moved = [torch.empty(n + repeat) for n in (1, 3, 8, 12, 36, 72)]
            args = arguments(name, Maker((2, 4, 5, 7), dtype), **options)
            got = run(name, args, 'compiled')
            del moved
            first = first or got
            assert all(a is b or torch.equal(a, b) for a, b in zip(got, first, strict=True))


@pytest.mark.parametrize('shape', [(2, 19, 5, 6), (3, 72, 4, 9), (1, 33, 21, 18)], ids=str)
@pytest.mark.parametrize('name', [n for n in NAMES if not n.endswith('coefficients')])
@LAYOUTS
def test_more_channels_than_a_vector_has_numbers(layout, name, shape, run):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 3e-4)):
        args = arguments(name, Maker(shape, dtype, layout), head_channels=1)
        got = run(name, args, 'compiled')
        assert_same(got, run(name, args, 'reference'), tolerance)
        assert name == 'carry_gradients' or has_layout(got, layout)


@LAYOUTS
@pytest.mark.parametrize('name', NAMES)
def test_triton_kernels_equal_the_reference(name, layout, run):
    for shape in ((2, 4, 7, 5), (1, 2, 1, 1), (1, 2, 3, 33)):
        args = arguments(name, Maker(shape, layout=layout))
        assert_same(run(name, args, 'triton'), run(name, args, 'reference'), 1e-10)


def test_triton_kernels_put_long_sums_together(run):
    for name in ('dual_dwconv_bn', 'weighted_sum_bn_relu_add', 'add_relu_pool'):
        args = arguments(name, Maker((1, 2, 66, 64)))
        args[0] += 10
        assert_same(run(name, args, 'triton'), run(name, args, 'reference'), 1e-9)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('name', NAMES)
@LAYOUTS
def test_half_precision_is_within_its_rounding(layout, name, dtype, run):
    """Outputs and gradients in half precision against float64 of the same rounded inputs."""
    shapes = {'reference': [(2, 4, 7, 5)], 'triton': [(2, 4, 7, 5)]}
    shapes['compiled'] = [(2, 4, 7, 5), (2, 2, 4, 19), (1, 20, 3, 9), (3, 4, 1, 1)]
    for kernels, several in shapes.items():
        for shape in several:
            args = arguments(name, Maker(shape, dtype, layout))
            flat, spec = tree_flatten(args)
            exact = [v.double() if isinstance(v, torch.Tensor) else v for v in flat]
            expected = run(name, tree_unflatten(exact, spec), 'reference')
            found = run(name, args, kernels)
            assert name == 'carry_gradients' or has_layout(found, layout)
            for got, truth in zip(found, expected, strict=True):
                if got is not None:
                    scale = truth.abs().max().item() + 1e-6
                    assert (got.double() - truth).abs().max() < 8 * torch.finfo(dtype).eps * scale


def test_kernels_check_what_they_read_by_pointers():
    make = Maker((2, 12, 5, 4), torch.bfloat16)
    x, vector, taps = make.map(), make.vector(2, 12), make.vector(2, 12, 9)
    weights, last = make.vector(2, 1, 12), x.contiguous(memory_format=torch.channels_last)
    calls = {
        'pool_add_relu': [x, x, vector, vector],
        'add_relu_pool': [x, x, vector, vector, False],
        'add_relu_pool_backward': [x, vector, vector, None, x],
        'dual_dwconv': [x, x, taps, taps, vector],
        'dual_dwconv_moments': [x, x, taps, taps],
        'dual_dwconv_backward': [x, x, x, taps, taps],
        'dual_dwconv_backward_normed': [x, x, x, taps, taps, vector, vector, vector],
        'dwconv_pool': [x, taps[0].contiguous()],
        'dwconv_pool_backward': [x, vector, x, taps[0].contiguous()],
        'weighted_sum': [weights, [x]],
        'weighted_sum_moments': [weights, [x]],
        'weighted_sum_relu_add': [x, weights, [x], vector, vector, vector, False],
        'relu_add': [x, x.float(), vector, vector, vector],
        'relu_products': [x, weights, [x], vector, vector],
        'relu_gradient': [x.float(), x, *[vector] * 5],
    }
    for name, args in calls.items():
        kernel = getattr(backend.load_cpu(), name)
        kernel(*args)
        several = sum(isinstance(a, torch.Tensor) and a.dim() == 4 for a in args) > 1
        for i, arg in enumerate(args):
            if not isinstance(arg, torch.Tensor):
                continue
            wrong = [arg[..., :-1], arg.double()]
            if arg.dim() == 4 and several:
                wrong.append(last.to(arg.dtype))
            for bad in wrong:
                with pytest.raises(RuntimeError, match='mmdla: '):
                    kernel(*args[:i], bad, *args[i + 1 :])


def through_tokens(name, args):
    """What the operation computes as a function of its maps: a token is ``v - v.detach()``."""
    if name == 'add_relu_pool':
        return operation(name)(*args)[:3]
    if name.startswith('dual_dwconv'):
        x, s, _, *rest = args
        out = operation(name)(x, s, s - s.detach(), *rest)
        return out if name == 'dual_dwconv' else out[0]
    if name.startswith('weighted_sum'):  # all maps are of this block
        x, weights, values, map_token, weight_token, *rest = args
        tokens = [map_token, weight_token]
        for index, value in enumerate(values):
            tokens = operation('carry_gradients')(value, index, tokens)
        out = operation(name)(x, weights, values, *tokens, *rest)
        return out if name == 'weighted_sum_relu_add' else out[0]
    return operation(name)(*args)


GRADIENTS = [case for case in CASES if case[0] in TRAINED and case[0] != 'carry_gradients']


@pytest.mark.parametrize(('name', 'options'), GRADIENTS, ids=str)
def test_gradients(name, options):
    args = arguments(name, Maker(SMALL), **options)
    constant = dict(dual_dwconv=[2], dual_dwconv_bn=[2, 7], light_coefficients=[12])
    found, spec = tree_flatten(args)
    fixed = [args[i] for i in constant.get(name, [3, 4] if 'relu_add' in name else [])]
    if name == 'light_coefficients':
        fixed += args[10][2:]  # running statistics
    own = [
        i
        for i, v in enumerate(found)
        if isinstance(v, torch.Tensor) and not any(v is other for other in fixed)
    ]

    def function(*values):
        now = list(found)
        for i, value in zip(own, values, strict=True):
            now[i] = value
        return tuple(t for t in tensors(through_tokens(name, tree_unflatten(now, spec))))

    inputs = [found[i].clone().requires_grad_() for i in own]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize('kernels', ['compiled', 'reference'])
@pytest.mark.parametrize('name', NAMES)
def test_autocast_decides_on_arguments_alone(name, kernels, run):
    """Within an operation nothing is rounded that was not when it came."""
    args = arguments(name, Maker((2, 4, 7, 5), torch.float32))
    expected = run(name, args, kernels)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = run(name, args, kernels)
    for a, b in zip(got, expected, strict=True):
        assert (a is None and b is None) or (a.dtype == b.dtype and torch.equal(a, b))


@pytest.mark.parametrize('options', options_of('light_coefficients')[:4], ids=str)
def test_coefficients_of_no_sample(options):
    args = arguments('light_coefficients', Maker((0, 4, 3, 4)), **options)
    found, args = leaves(args)
    outs = operation('light_coefficients')(*args)
    assert [out.shape for out in outs[:2]] == [(0, 4, 9), (0, 4, 9)]
    grads = torch.autograd.grad(
        [out.sum() for out in outs if out.requires_grad], found, allow_unused=True
    )
    assert not any(g.any() for g in grads if g is not None)


@pytest.mark.parametrize('name', IN_PLACE)
@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16], ids=str)
@LAYOUTS
def test_forms_in_place(layout, dtype, name):
    if name == 'update_statistics_':
        dtype = torch.float64
    args = arguments(name, Maker((2, 12, 7, 5), dtype, layout))
    copies = [v.clone() if isinstance(v, torch.Tensor) else v for v in args]
    outs = tensors(operation(name)(*args))
    if name == 'update_statistics_':
        norm = torch.nn.BatchNorm1d(12, momentum=0.2).double()
        norm.running_mean.copy_(copies[0]), norm.running_var.copy_(copies[1])
        batch = torch.randn(7, 12, dtype=torch.float64)
        args = [*copies[:3], batch.mean(0), batch.var(0, unbiased=False), *copies[5:]]
        operation(name)(*args)
        norm(batch)
        torch.testing.assert_close(args[:2], [norm.running_mean, norm.running_var])
        assert args[2] == 4
        return
    expected = tensors(operation(name[:-1])(*copies))
    for a, b in zip([args[0], *outs], expected, strict=True):
        assert torch.equal(a, b)


@LAYOUTS
def test_block_is_rounded_as_pytorch_rounds(layout):
    """So that an attention that starts as the identity leaves the network's features as they are."""
    norm = torch.nn.BatchNorm2d(16).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.3, 2)
    make = Maker((2, 16, 33, 41), torch.float32, layout)
    args = arguments('light_block', make)
    args[0] *= 10
    args[2], args[3] = [norm.weight, norm.bias, norm.running_mean, norm.running_var], norm.eps
    args[12] = [torch.zeros(16), torch.zeros(16), torch.zeros(16), torch.ones(16)]
    with torch.no_grad():
        out = operation('light_block')(*args)[0]
        assert torch.equal(out, (norm(args[0]) + args[1]).relu())


@LAYOUTS
def test_variances_do_not_cancel(layout):
    """Statistics of a map whose mean is far from zero."""
    args = arguments('dual_dwconv_bn', Maker((2, 4, 30, 30), torch.float32, layout))
    exact = [v.double() if isinstance(v, torch.Tensor) else v for v in args]
    for a in (args, exact):
        a[0] = a[0] * 0.01 + 100
        a[3], a[4] = torch.zeros_like(a[3]), torch.zeros_like(a[4])
        a[3][..., 4] = 1
    _, mean, var = operation('dual_dwconv_bn')(*args)
    exact[0] = args[0].double()
    _, mean64, var64 = operation('dual_dwconv_bn')(*exact)
    torch.testing.assert_close(var.double(), var64, rtol=1e-2, atol=0)
    torch.testing.assert_close(mean.double(), mean64, rtol=1e-6, atol=0)
    args = arguments('weighted_sum_bn_relu_add', Maker((2, 4, 30, 30), torch.float32, layout))
    args[1] = torch.tensor([1.0, 0, 0])[:, None].expand(2, 3, 4).contiguous()
    args[2] = [v * 0.01 + 100 for v in args[2]]
    _, mean, var = operation('weighted_sum_bn_relu_add')(*args)
    var64, mean64 = torch.var_mean(args[2][0].double(), (0, 2, 3), unbiased=False)
    torch.testing.assert_close(var.double(), var64, rtol=1e-2, atol=0)
    torch.testing.assert_close(mean.double(), mean64, rtol=1e-6, atol=0)
