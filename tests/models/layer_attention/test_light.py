"""DLA-L and MRLA-L against the equations, channel by channel."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmdla import DLALight, MRLALight


def by_hand(module, index, x, s, state):
    """One block, written from the equations with loops in place of tensor tricks."""
    heads = module.blocks[index]
    batch, channels = x.shape[:2]
    y = x.flatten(2).mean(-1)
    q = F.conv1d(y[:, None], heads.query.weight, padding=heads.query.padding)[:, 0]
    k = F.conv1d(y[:, None], heads.key.weight, padding=heads.key.padding)[:, 0]
    a = torch.empty_like(y)
    width = heads.head_channels
    for b in range(batch):
        for h in range(0, channels, width):
            dot = sum(q[b, n] * k[b, n] for n in range(h, h + width))
            a[b, h : h + width] = 1 / (1 + math.exp(-dot / math.sqrt(width)))
    value = F.conv2d(x, heads.value.weight, padding=1, groups=channels)
    if isinstance(module, DLALight):
        state = module.dsu(y, state)
        d = module.dsu(s.flatten(2).mean(-1), state)[0]
        s = d[..., None, None] * s
        s = s + F.conv2d(s / d[..., None, None], module.extract.weight, padding=1, groups=channels)
    o = a[..., None, None] * value + heads.lambda_ * s
    mean, var = heads.norm.running_mean, heads.norm.running_var
    o = (o - mean[:, None, None]) / (var[:, None, None] + heads.norm.eps).sqrt()
    return x + o * heads.norm.weight[:, None, None] + heads.norm.bias[:, None, None], state


@pytest.mark.parametrize('kind', [DLALight, MRLALight])
@pytest.mark.parametrize('size', [(1, 1), (7, 5)])
def test_by_hand(kind, size):
    torch.manual_seed(0)
    module = kind(16, 3, head_channels=8).double().eval()
    for heads in module.blocks:
        heads.norm.running_mean.normal_()
        heads.norm.running_var.uniform_(0.5, 2)
    state = expected_state = None
    for index in range(3):
        x, s = torch.randn(2, 2, 16, *size, dtype=torch.float64)
        got, state = module.attend(index, x, s, state)
        expected, expected_state = by_hand(module, index, x, s, expected_state)
        torch.testing.assert_close(got, expected)


def test_blocks_share_the_unit_and_the_extraction():
    module = DLALight(32, 4)
    one = DLALight(32, 1)
    extra = sum(p.numel() for p in module.parameters()) - sum(p.numel() for p in one.parameters())
    per_block = sum(p.numel() for p in one.blocks.parameters())
    assert extra == 3 * per_block


def test_context_of_the_first_sample():
    torch.manual_seed(0)
    own = DLALight(32, 2).eval()
    first = DLALight(32, 2, context='first').eval()
    first.load_state_dict(own.state_dict())
    x, s = torch.randn(2, 3, 32, 4, 4)
    (a, _), (b, _) = own.attend(0, x, s, None), first.attend(0, x, s, None)
    torch.testing.assert_close(a[0], b[0])
    assert not torch.allclose(a[1:], b[1:])


@pytest.mark.parametrize(
    ('words', 'args'),
    [
        ('head_channels.*48.*got 32', dict(channels=48)),
        ('kernel_size.*odd.*4', dict(channels=32, kernel_size=4)),
        ('drop_path_rate.*1.5', dict(channels=32, drop_path_rate=1.5)),
        ('reduction.*-1', dict(channels=32, reduction=-1)),
        ('context.*other', dict(channels=32, context='other')),
    ],
)
def test_bad_arguments(words, args):
    with pytest.raises(ValueError, match=words):
        DLALight(num_blocks=2, **args)
