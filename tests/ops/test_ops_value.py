"""The fast path of value maps computes what the reference computes."""

import pytest
import torch

from mmdla.ops import value_map

SHAPES = [(2, 4, 8, 8), (2, 3, 1, 1), (3, 2, 7, 5), (1, 2, 40, 33), (2, 3, 4, 2), (1, 2, 19, 110)]


def inputs(shape, dtype=torch.float64):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=dtype).requires_grad_()
    return x, torch.randn(shape[1], 1, 3, 3, dtype=dtype).requires_grad_()


@pytest.mark.parametrize('dtype, tolerance', [(torch.float64, 1e-11), (torch.float32, 1e-5)])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_equals_reference(shape, dtype, tolerance):
    g, of_pooled = torch.randn(shape, dtype=dtype), torch.randn(shape[:2], dtype=dtype)
    results = []
    for ops in ('reference', 'fast'):
        leaves = inputs(shape, dtype)
        outs = value_map(*leaves, ops)
        results.append([*outs, *torch.autograd.grad(outs, leaves, (g, of_pooled))])
    for reference, got in zip(*results, strict=True):
        scale = reference.abs().max().item()
        torch.testing.assert_close(got, reference, rtol=0, atol=tolerance * max(1, scale))


@pytest.mark.parametrize('shape', [(2, 2, 3, 4), (1, 1, 9, 9)], ids=str)
def test_gradients(shape):
    torch.autograd.gradcheck(lambda x, w: value_map(x, w, 'fast'), inputs(shape))


def test_only_one_result_is_used():
    """What is not used has no gradient, which counts as zero."""
    for index in range(2):
        leaves = inputs((2, 3, 6, 5))
        grads = [
            torch.autograd.grad(value_map(*leaves, ops)[index].square().sum(), leaves)
            for ops in ('reference', 'fast')
        ]
        for reference, got in zip(*grads, strict=True):
            torch.testing.assert_close(got, reference)


def test_non_contiguous_maps_take_the_reference():
    x, weight = inputs((2, 4, 6, 5))
    last = x.detach().contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(value_map(last, weight)[0], value_map(x, weight)[0])
    with pytest.raises(RuntimeError, match='needs NCHW'):
        value_map(last, weight, 'fast')
