"""The Triton kernels compile to machine code for GPUs, of which none is needed for that."""

import torch

from mmdla.ops.backend import BACKENDS, unsupported_reason


def test_kernels_compile_for_two_compute_capabilities(monkeypatch, run_process):
    monkeypatch.setenv('TRITON_INTERPRET', '0')
    result = run_process('tests/ops/compile_kernels.py')
    assert result.returncode == 0, result.stderr
    assert result.stdout == '26 kernels compiled\n'


def test_what_they_take(monkeypatch):
    monkeypatch.setitem(BACKENDS, 'cpu', BACKENDS['cuda'])
    x = torch.randn(2, 4, 6, 6)
    last = x.contiguous(memory_format=torch.channels_last)
    assert unsupported_reason(x, x) is None
    assert unsupported_reason(last, last) is None
    assert unsupported_reason(x.half(), x.half()) is None
    assert 'they need NCHW or channels_last' in unsupported_reason(x, last)
    assert 'they need NCHW or channels_last' in unsupported_reason(x[..., 1:], x[..., 1:])
    assert 'differ in dtype' in unsupported_reason(x, x.half())
    assert 'got torch.int64' in unsupported_reason(x.long())
    assert not BACKENDS['cuda'].enabled_by_default, 'until they have run on a GPU'


def test_what_the_compiled_ones_take():
    for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            x = torch.zeros(1, 2, 3, 3, dtype=dtype).contiguous(memory_format=layout)
            assert unsupported_reason(x, x) is None
    assert 'got torch.int64' in unsupported_reason(torch.zeros(1, 2, 3, 3, dtype=torch.int64))
    assert 'they need NCHW or channels_last' in unsupported_reason(torch.zeros(1, 2, 3, 4)[..., 1:])
