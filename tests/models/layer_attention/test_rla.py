"""RLA beside its fixtures: the convolution of two maps, odd sizes, what crosses the stages."""

import copy

import pytest
import torch
from torch.nn.functional import conv2d

from mmdla import DLAResNet
from mmdla.models.layer_attention import LayerAttention

SMALL = dict(type='RLA', hidden_channels=4)


def make(depth=18, **options):
    torch.manual_seed(0)
    return DLAResNet(depth, base_channels=8, zero_init_residual=False, **options).double().eval()


@pytest.mark.parametrize('style', ['pytorch', 'caffe'])
@pytest.mark.parametrize('depth', [18, 50])
def test_a_block_reads_both_maps(depth, style):
    """As by one convolution of the input and the recurrent map, one behind the other."""
    model = make(depth, style=style, layer_attention=SMALL)
    seen = []
    block, attention = model.layer2[0], model.layer2.attention
    block.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    block.norm1.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    attention.read['0'].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        model(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    h, x, got = seen
    assert h.shape[1] == 4 and h.any()
    weight = torch.cat((block.conv1.weight, attention.read['0'].weight), 1)
    expected = conv2d(torch.cat((x, h), 1), weight, None, block.conv1.stride, block.conv1.padding)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('size', [(33, 47), (40, 25), (64, 64)])
@pytest.mark.parametrize('strides', [(1, 2, 2, 2), (1, 2, 1, 1), (1, 3, 2, 1)])
def test_any_size_and_stride(size, strides):
    """The official code fails where a map has an odd size."""
    model, plain = (make(strides=strides, layer_attention=a) for a in (SMALL, None))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        assert [out.shape for out in model(x)] == [out.shape for out in plain(x)]


def test_the_state_crosses_the_stages_and_is_local_to_a_pass():
    model = make(layer_attention=SMALL)
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        model(torch.randn(2, 3, 64, 32, dtype=torch.float64))
        assert all(torch.equal(a, b) for a, b in zip(model(x), expected, strict=True))
        torch.nn.init.normal_(model.layer1.attention.recurrent.weight)
        changed = model(x)
    assert [torch.equal(a, b) for a, b in zip(changed, expected, strict=True)] == [False] * 4


def test_a_stage_alone_begins_with_zeros():
    stage = make(layer_attention=SMALL).layer2
    x = torch.randn(2, 8, 12, 12, dtype=torch.float64)
    silent = copy.deepcopy(stage)
    torch.nn.init.zeros_(silent.attention.read['0'].weight)
    with torch.no_grad():
        assert torch.equal(stage(x), silent(x))
        states = []
        stage(x, None, states.append)
    (state,) = states
    assert state.shape == (2, 4, 6, 6)


def test_a_stage_hands_a_map_to_its_hooks():
    model, seen = make(layer_attention=SMALL), []
    for stage in model.stages:
        stage.register_forward_hook(lambda _, args, out: seen.append(out))
    with torch.no_grad():
        outs = model(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert all(torch.equal(a, b) for a, b in zip(seen, outs, strict=True))


class Counting(LayerAttention):
    """An attention of somebody else's whose state crosses the stages."""

    crosses_stages = True

    def __init__(self, channels, num_blocks, last=False, **kwargs):
        super().__init__(channels, num_blocks, **kwargs)
        self.last, self.seen = last, []

    def attend(self, index, x, shortcut, state):
        state = (state or 0) + 1
        self.seen.append(state)
        return x, state


def test_an_own_attention_that_crosses_stages():
    model = make(layer_attention=dict(type=Counting))
    model(torch.randn(1, 3, 32, 32, dtype=torch.float64))
    assert [stage.attention.seen for stage in model.stages] == [[1, 2], [3, 4], [5, 6], [7, 8]]
    assert [stage.attention.last for stage in model.stages] == [False, False, False, True]
    with pytest.raises(ValueError, match='last is that of the stage'):
        make(layer_attention=dict(type=Counting, last=True))
