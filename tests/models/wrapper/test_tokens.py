"""MRLA over tokens, against the equations written with loops. Exactness: tests/test_golden.py."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from host_backbones import HOSTS, build, build_host
from mmengine.registry import MODELS

from mmdla import MRLABaseTokens, MRLALightTokens, WithLayerAttention
from mmdla.models.wrapper.tokens import to_map, to_tokens

VIT = 'mmpretrain.VisionTransformer'
GRID = (3, 5)


def tokens(extra: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, extra + math.prod(GRID), 32, generator=generator, dtype=torch.float64)


def lively(kind, blocks: int, **options):
    torch.manual_seed(0)
    attention = kind(32, blocks, **options).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def head_scores(q, k, width: int):
    """<q_g, k_g> / sqrt(d), repeated for the channels of the head: (B, C)."""
    scores = torch.zeros_like(q)
    for c in range(q.shape[1]):
        head = slice(c // width * width, c // width * width + width)
        scores[:, c] = (q[:, head] * k[:, head]).sum(1) / math.sqrt(width)
    return scores


def normed(norm, x):
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred**2).mean(-1, keepdim=True)
    return centred / (variance + 1e-6).sqrt() * norm.weight + norm.bias


def query_key_value(heads, u, extra: int):
    patches = u[:, extra:].reshape(2, *GRID, 32).permute(0, 3, 1, 2)  # row-major
    pooled = patches.mean((2, 3))
    q, k = (
        F.conv1d(pooled[:, None], conv.weight, padding=conv.weight.shape[-1] // 2)[:, 0]
        for conv in (heads.query, heads.key)
    )
    value = F.conv2d(patches, heads.value.weight, padding=1, groups=32)
    return q, k, value.permute(0, 2, 3, 1).reshape(2, -1, 32)


@pytest.mark.parametrize('extra', [0, 1, 2])
@pytest.mark.parametrize('width', [8, 16])
def test_light(extra, width):
    attention = lively(MRLALightTokens, 2, head_channels=width)
    x, shortcut = tokens(extra), tokens(extra, 1)
    out, state = attention(1, x, shortcut, None, GRID, extra)
    heads = attention.blocks[1]
    u = normed(heads.norm_x, x)
    q, k, value = query_key_value(heads, u, extra)
    gelu = value * 0.5 * (1 + torch.erf(value / math.sqrt(2)))
    o = torch.sigmoid(head_scores(q, k, width))[:, None] * gelu
    o = o + heads.lambda_ * normed(heads.norm_o, shortcut)[:, extra:]
    torch.testing.assert_close(out, x + torch.cat((u[:, :extra], o), 1))
    assert state is None


@pytest.mark.parametrize('extra', [0, 1])
@pytest.mark.parametrize('restart', [1, 3, 4, 9])
def test_base(extra, restart):
    attention = lively(MRLABaseTokens, 7, restart=restart)
    state, all_keys, all_values = None, [], []
    for index in range(7):
        x = tokens(extra, index)
        out, state = attention(index, x, x, state, GRID, extra)
        heads = attention.blocks[index]
        u = normed(heads.norm_x, x)
        q, k, value = query_key_value(heads, u, extra)
        all_keys.append(k)
        all_values.append(value)
        seen = range(index - index % restart, index + 1)
        scores = torch.stack([head_scores(q, all_keys[m], 16) for m in seen])
        weights = scores.exp() / scores.exp().sum(0)
        o = sum(w[:, None] * all_values[m] for w, m in zip(weights, seen, strict=True))
        torch.testing.assert_close(out, x + torch.cat((u[:, :extra], o), 1))


def test_maps_and_tokens():
    x = tokens(0)
    maps = to_map(x, GRID)
    assert torch.equal(maps[:, :, 1, 2], x[:, 1 * 5 + 2])
    assert maps.data_ptr() == x.data_ptr()
    assert torch.equal(to_tokens(maps), x)
    assert to_tokens(maps).data_ptr() == x.data_ptr()


@pytest.mark.parametrize('kind', [MRLALightTokens, MRLABaseTokens])
def test_starts_as_the_identity_and_learns_from_there(kind):
    attention = lively(kind, 6)  # whatever the parameters are
    attention.start_as_identity()
    x = tokens(1)
    state, out = None, x
    for index in range(6):
        out, state = attention(index, out, out, state, GRID, 1)
    assert torch.equal(out, x)
    out.square().sum().backward()
    for heads in attention.blocks:
        assert heads.norm_x.weight.grad.any() and heads.norm_x.bias.grad.any()
        if kind is MRLALightTokens:
            assert heads.lambda_.grad.any()


@pytest.mark.parametrize('kind', ['MRLALightTokens', 'MRLABaseTokens', 'DLALight', 'DLABase'])
def test_images_of_other_shapes(kind):
    """The grid is that of the image, as the host's own position embedding has it."""
    model = build(VIT, kind, zero_init_attention=False, host=dict(out_type='featmap')).eval()
    wide, tall = torch.rand(1, 3, 32, 128), torch.rand(1, 3, 48, 80)
    for x in (wide, tall, wide):
        (out,) = model(x)
        assert out.shape == (1, 32, x.shape[2] // 16, x.shape[3] // 16)
    assert torch.equal(model(wide)[0], model(wide)[0])


@pytest.mark.parametrize(
    'options',
    [
        dict(out_type='cls_token'),
        dict(out_type='featmap'),
        dict(out_type='avg_featmap', with_cls_token=False),
        dict(out_type='raw', final_norm=False, pre_norm=True),
        dict(out_type='raw', frozen_stages=2, layer_scale_init_value=0.1),
    ],
)
@pytest.mark.parametrize('kind', ['MRLALightTokens', 'DLALight'])
def test_options_of_the_host(kind, options):
    """Of several layers, starting as the host does."""
    options = {**options, 'out_indices': [1, 4]}
    torch.manual_seed(0)
    host = MODELS.build(dict(type=VIT, **{**HOSTS[VIT], **copy.deepcopy(options)}))
    host.eval()
    cfg = dict(type=VIT, **{**HOSTS[VIT], **copy.deepcopy(options)})
    model = WithLayerAttention(cfg, dict(type=kind, head_channels=16)).eval()
    model.load_state_dict(host.state_dict(), strict=False)
    x = torch.rand(2, 3, 64, 64)
    for ours, theirs in zip(model(x), host(x), strict=True):
        assert torch.equal(ours, theirs)
    assert len(model(x)) == 2


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('kind', ['MRLALightTokens', 'MRLABaseTokens'])
def test_low_precision(kind, dtype):
    model = build(VIT, kind, zero_init_attention=False).eval()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        (expected,) = model(x)
        with torch.autocast('cpu', dtype):
            (mixed,) = model(x)
        (low,) = model.to(dtype)(x.to(dtype))
    assert low.dtype == dtype
    for out in (mixed, low):
        torch.testing.assert_close(out.float(), expected, atol=0.15, rtol=0.1)


def test_large_values_in_half_precision():
    """Products of queries and keys are beyond float16 where these are not."""
    attention = MRLABaseTokens(32, 2).half()
    q = torch.full((1, 32), 300.0, dtype=torch.float16)
    scores = attention.blocks[0].similarity(q, q)
    assert scores.dtype == torch.float32 and scores.isfinite().all()


def test_depths_of_layer_wise_learning_rates():
    model, host = build(VIT, 'DLALight'), build_host(VIT)
    for name in host.state_dict():
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == host.get_layer_depth(
            f'backbone.{name}', 'backbone.'
        )
    for name, depth in {
        'layer_attentions.0.blocks.0.query.weight': 1,
        'layer_attentions.0.blocks.4.lambda_': 5,
        'layer_attentions.0.dsu.from_y.0.weight': 5,  # of all blocks
    }.items():
        assert name in model.state_dict()
        assert model.get_layer_depth(f'backbone.{name}', 'backbone.') == (depth, 7)
    assert model.get_layer_depth('head.layers.head.weight', 'backbone.') == (6, 7)
