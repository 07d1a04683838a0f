"""The Triton kernels compute what the reference computes: on a GPU, or interpreted on the CPU."""

import copy

import pytest
import torch
from mmcv.cnn.bricks import DropPath
from test_ops_full import inputs as full_inputs
from test_ops_full import stage
from test_ops_light import batch_norm, leaves
from test_ops_light import inputs as light_inputs
from torch import nn

from mmdla import DLAResNet_CIFAR
from mmdla.ops import join, light_attention
from mmdla.ops.backend import BACKENDS, load_triton, obstacle
from mmdla.ops.choice import takes_fast_path
from mmdla.ops.light import attention_map

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(2, 5, 7, 5), (3, 3, 1, 1), (1, 2, 3, 33)]

layouts = pytest.mark.parametrize('layout', LAYOUTS, ids=['nchw', 'channels_last'])
shapes = pytest.mark.parametrize('shape', SHAPES, ids=str)
norms = pytest.mark.parametrize('training', [True, False], ids=['live', 'frozen'])


@pytest.fixture(autouse=True)
def triton_kernels(monkeypatch):
    """Maps on the CPU are served by Triton's interpreter."""
    assert load_triton() is not None
    if DEVICE == 'cpu':
        monkeypatch.setitem(BACKENDS, 'cpu', BACKENDS['cuda'])


def moved(tensors, layout):
    """The leaves on the device, maps in a layout."""
    found = []
    for t in tensors:
        t = None if t is None else t.detach().to(DEVICE)
        if t is not None and t.dim() == 4 and t.shape[-1] != 3:
            t = t.contiguous(memory_format=layout)
        found.append(None if t is None else t.requires_grad_())
    return found


def assert_equal(first, second, tolerance=1e-10):
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(b, a, rtol=tolerance, atol=tolerance)


@layouts
@shapes
@norms
def test_light_attention(shape, training, layout):
    x, s, weights = light_inputs(shape)
    x, s, *rest = moved([x, s, *weights], layout)
    weights = type(weights)(*rest)
    norm = batch_norm(shape[1], training).to(DEVICE)
    g = torch.randn(shape, dtype=torch.float64, device=DEVICE)
    results = []
    for ops in ('reference', 'fast'):
        own = copy.deepcopy(norm)
        torch.manual_seed(1)
        out = light_attention(x, s, weights, own, DropPath(0.5).train(), ops)
        results.append([out, *torch.autograd.grad(out, leaves(x, s, weights, own), g)])
        results[-1] += own.buffers()
    assert_equal(*results)


@layouts
@shapes
@norms
def test_full_attention(shape, training, layout):
    x, weights, values, scale = full_inputs(shape)
    x, scale, *rest = moved([x, scale, *weights, *values], layout)
    weights, values = rest[:3], rest[3:]
    norms = nn.ModuleList(batch_norm(shape[1], training) for _ in range(3)).to(DEVICE)
    g = torch.randn(shape, dtype=torch.float64, device=DEVICE)
    results = []
    for ops in ('reference', 'fast'):
        own = copy.deepcopy(norms).train(training)
        torch.manual_seed(1)
        out = stage(x, weights, values, own, scale, DropPath(0.5).train(), ops)
        parameters = [x, *weights, *values, *own.parameters(), scale]
        results.append([out, *torch.autograd.grad(out, parameters, g), *own.buffers()])
    assert_equal(*results)


@layouts
@shapes
def test_join(shape, layout):
    r, s = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    r, s, g = moved([r, s, torch.randn_like(r)], layout)
    of_x, of_s = torch.randn(2, *shape[:2], dtype=torch.float64, device=DEVICE)
    results = []
    for ops in ('reference', 'fast'):
        x, pooled = join(r * 1, s, ops)
        pooled = pooled or (x.mean((2, 3)), s.mean((2, 3)))
        total = (x * g).sum() + (pooled[0] * of_x).sum() + (pooled[1] * of_s).sum()
        results.append([x, *pooled[:2], *torch.autograd.grad(total, (r, s))])
    assert_equal(*results)


def test_several_spans():
    """A map so large that its sums are put together from several programs."""
    shape = (1, 1, 66, 64)
    x, s, weights = light_inputs(shape)
    x, s, *rest = moved([x + 10, s, *weights], torch.contiguous_format)
    weights, norm = type(weights)(*rest), batch_norm(1, True).to(DEVICE)
    g = torch.randn(shape, dtype=torch.float64, device=DEVICE)
    results = []
    for ops in ('reference', 'fast'):
        out = light_attention(x, s, weights, norm, nn.Identity(), ops)
        results.append([out, *torch.autograd.grad(out, leaves(x, s, weights, norm), g)])
    assert_equal(*results, 1e-9)


@layouts
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_within_its_rounding(dtype, layout):
    x, s, weights = light_inputs((2, 5, 7, 5))
    x, s, *rest = moved([x, s, *weights], layout)
    weights, norm = type(weights)(*rest), batch_norm(5, True).to(DEVICE)
    exact = x + norm(attention_map(x.to(dtype).double(), s.to(dtype).double(), weights))
    exact.square().mean().backward()
    halves = [t.detach().to(dtype).requires_grad_() for t in (x, s)]
    single = type(weights)(*(w.detach().float().requires_grad_() for w in weights))
    got = light_attention(*halves, single, copy.deepcopy(norm).float(), nn.Identity(), 'fast')
    got.float().square().mean().backward()
    assert got.dtype == dtype
    step = torch.finfo(dtype).eps
    pairs = [(got, exact), (halves[0].grad, x.grad), (halves[1].grad, s.grad)]
    pairs += [(a.grad, b.grad) for a, b in zip(single, weights, strict=True)]
    for value, truth in pairs:
        error = (value.double() - truth).abs().max() / truth.abs().max()
        assert error < 3 * step


@norms
def test_gradcheck(training):
    x, s, weights = light_inputs((2, 2, 2, 3))
    x, s, *rest = moved([x, s, *weights], torch.contiguous_format)
    norm = batch_norm(2, training).to(DEVICE)
    norm.momentum = 0.0  # gradcheck calls it several times

    def function(x, s, *weights_):
        return light_attention(x, s, type(weights)(*weights_), norm, nn.Identity(), 'fast')

    assert torch.autograd.gradcheck(function, (x, s, *rest), fast_mode=True)


@pytest.mark.parametrize('kind', ['DLALight', 'DLABase'])
def test_a_network_under_autocast(kind):
    """Outputs in bfloat16 are as near to float64 as those of the reference, and it trains."""
    images, outs = torch.randn(2, 3, 4, 4, device=DEVICE), {}
    for ops in ('exact', 'reference', 'fast'):
        torch.manual_seed(0)
        attention = dict(type=kind, ops=ops.replace('exact', 'reference'), head_channels=16)
        model = DLAResNet_CIFAR(14, layer_attention=attention, block='basic').train()
        model.to(DEVICE, memory_format=torch.channels_last)
        if ops == 'exact':
            outs[ops] = model.double()(images.double())[-1]
            continue
        with torch.autocast(DEVICE, dtype=torch.bfloat16):
            outs[ops] = model(images.contiguous(memory_format=torch.channels_last))[-1]
        outs[ops].float().square().mean().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), name
    exact = outs.pop('exact')
    error = {ops: (out.double() - exact).norm() / exact.norm() for ops, out in outs.items()}
    assert error['fast'] < 1.5 * error['reference'] + torch.finfo(torch.bfloat16).eps


def test_only_if_asked_for():
    x = torch.zeros(1, 1, 2, 2, device=DEVICE)
    assert not takes_fast_path('auto', x, lambda: None)
    assert takes_fast_path('fast', x, lambda: None)


def test_obstacles():
    x = torch.randn(2, 4, 6, 6, device=DEVICE)
    assert obstacle(x, x) is None
    last = x.contiguous(memory_format=torch.channels_last)
    assert obstacle(last, last) is None
    assert 'it needs NCHW or NHWC' in obstacle(x, last)
    assert 'it needs NCHW or NHWC' in obstacle(x[..., 1:], x[..., 1:])
    assert 'differ in dtype' in obstacle(x, x.half())
    assert 'got torch.int64' in obstacle(x.long())


def test_kernels_compile_for_gpus(monkeypatch, run_process):
    """To machine code for the GPU generations 8.0 and 9.0, where none is at hand."""
    monkeypatch.setenv('TRITON_INTERPRET', '0')
    result = run_process('tests/ops/compile_kernels.py')
    assert result.returncode == 0, result.stderr
    assert result.stdout == '26 kernels compiled\n'
