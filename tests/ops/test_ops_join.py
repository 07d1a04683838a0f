"""The fused end of a block computes what addition, ReLU and pooling do."""

import pytest
import torch

from mmdla.ops import join
from mmdla.ops.join import Join


@pytest.mark.parametrize('shape', [(2, 3, 5, 7), (1, 2, 1, 1), (2, 2, 40, 33)], ids=str)
def test_equals_reference(shape):
    torch.manual_seed(0)
    r, s = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for _ in range(2))
    g, gx, gs = torch.randn(shape).double(), torch.randn(shape[:2]), torch.randn(shape[:2])
    results = []
    for ops in ('reference', 'fast'):
        x, pooled = join(r * 1, s, ops)
        if ops == 'reference':
            assert pooled is None
            pooled = x.mean((2, 3)), s.mean((2, 3))
        total = (x * g).sum() + (pooled[0] * gx).sum() + (pooled[1] * gs).sum()
        results.append([x, *pooled, *torch.autograd.grad(total, (r, s))])
    for reference, got in zip(*results, strict=True):
        torch.testing.assert_close(got, reference, rtol=1e-12, atol=1e-12)


def test_gradcheck():
    r, s = (torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda r, s: Join.apply(r * 1, s), (r, s))


def test_overwrites_the_residual_and_passes_nan_on():
    r, s = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    r[0, 0, 0, 0] = torch.nan
    expected = (r + s).relu()
    x, _ = join(r, s, 'fast')
    assert x.data_ptr() == r.data_ptr()
    torch.testing.assert_close(x, expected, equal_nan=True)
