"""Layer attention around every host backbone: names, start, gradients."""

import pytest
import torch
from host_backbones import HOSTS, MAPS, TOKENS, build, build_host, image, returns_tokens, run
from mmengine.registry import MODELS
from mmengine.runner import load_checkpoint
from torch import nn

from mmdla import LayerAttention, WithLayerAttention

OURS = 'layer_attentions.'


def assert_equal(ours, host):
    assert len(ours) == len(host) > 0
    for a, b in zip(ours, host, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('name', HOSTS)
def test_starts_as_the_host_whose_weights_it_loads(name, tmp_path):
    host = build_host(name)
    torch.save(host.state_dict(), tmp_path / 'host.pth')
    kinds = (*MAPS, *TOKENS) if returns_tokens(name) else MAPS
    expected = {}
    for mode in (True, False):
        host.load_state_dict(torch.load(tmp_path / 'host.pth'))
        host.train(mode)
        expected[mode] = run(host)
    for kind in kinds:
        model = build(name, kind)
        load_checkpoint(model, str(tmp_path / 'host.pth'), map_location='cpu')
        for mode in (True, False):
            model.load_state_dict(torch.load(tmp_path / 'host.pth'), strict=False)
            assert_equal(run(model.train(mode)), expected[mode])


@pytest.mark.parametrize('name', HOSTS)
def test_names_are_the_hosts_and_one_more(name):
    host, model = build_host(name), build(name)
    theirs = list(host.state_dict())
    ours = [key for key in model.state_dict() if not key.startswith(OURS)]
    assert ours == theirs
    assert isinstance(model, type(host)) and isinstance(model, WithLayerAttention)
    assert type(model).__name__ == type(host).__name__
    assert len(model.state_dict()) > len(theirs)


@pytest.mark.parametrize('name', HOSTS)
def test_without_attention_it_is_the_host(name):
    host, model = build_host(name), build(name, None, zero_init_attention=False)
    assert list(model.state_dict()) == list(host.state_dict())
    model.load_state_dict(host.state_dict())
    assert_equal(run(model), run(host))


def without_influence(model, kind: str, last_is_lost: bool) -> set[str]:
    """Attention parameters whose gradient is zero, as the equations have it.

    One value has a constant weight in the softmax, whatever its query and key are, and of the last
    block of a vision transformer only the class token may be used.
    """
    names = set()
    for stage, attention in model.layer_attentions.items():
        count = attention.num_blocks
        restart = getattr(attention, 'restart', count)
        for first in range(0, count, restart) if 'Base' in kind else ():
            names.add(f'{OURS}{stage}.blocks.{first}.query.weight')
            if min(restart, count - first) == 1:
                names.add(f'{OURS}{stage}.blocks.{first}.key.weight')
        if last_is_lost:
            last = f'blocks.{count - 1}.'
            lost = [n for n, _ in attention.named_parameters() if n.startswith(last)]
            names |= {f'{OURS}{stage}.{n}' for n in lost if 'norm_x' not in n}
    return names


KINDS = [(name, kind) for name in HOSTS for kind in ('DLALight', 'DLABase')]
KINDS += [(name, kind) for name in HOSTS if returns_tokens(name) for kind in TOKENS]


@pytest.mark.parametrize(('name', 'kind'), KINDS)
def test_every_attention_parameter_gets_a_gradient(name, kind):
    """Also where block and attention are computed again in the backward pass."""
    model = build(name, kind, zero_init_attention=False)
    run_backward(model)
    attentions = {n: p for n, p in model.named_parameters() if n.startswith(OURS)}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in attentions.values())
    silent = {n for n, p in attentions.items() if not p.grad.any()}
    assert silent == without_influence(model, kind, last_is_lost='Distilled' in name)

    again = build(name, kind, zero_init_attention=False, with_cp=True)
    again.load_state_dict(model.state_dict())
    model.zero_grad()
    run_backward(model)
    run_backward(again)
    for (n, p), q in zip(model.named_parameters(), again.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), n
        if p.grad is not None:
            scale = p.grad.abs().max().clamp(min=1e-3)
            torch.testing.assert_close(q.grad / scale, p.grad / scale, atol=1e-4, rtol=1e-4)
    for (n, b), c in zip(model.named_buffers(), again.buffers(), strict=True):
        torch.testing.assert_close(c, b, msg=n)


def run_backward(model):
    generator = torch.Generator().manual_seed(3)
    outs = run(model)
    sum((out * torch.randn(out.shape, generator=generator)).sum() for out in outs).backward()


@MODELS.register_module()
class Recorder(LayerAttention):
    """Remember what it is given, and change it, so that what follows is given something new."""

    def attend(self, index, x, shortcut, state):
        state = (*(state or ()), index)
        assert state == tuple(range(index + 1))
        self.seen = getattr(self, 'seen', [])
        self.seen.append((x, shortcut))
        return x * 1.5, state

    def start_as_identity(self):
        pass


@pytest.mark.parametrize('name', HOSTS)
def test_it_sees_what_every_block_returned_and_was_given(name):
    """The hosts' own blocks, watched by hooks."""
    cfg = dict(type=name, **HOSTS[name])
    model = WithLayerAttention(cfg, dict(type='Recorder')).eval()
    blocks = {}
    for paths in model.attended_blocks.values():
        for path in paths:
            block = model.get_submodule(path)
            hook = lambda m, args, out, key=path: blocks.update({key: (args[0], out)})  # noqa: E731
            block.register_forward_hook(hook)
    run(model)
    for stage, paths in model.attended_blocks.items():
        seen = model.layer_attentions[stage].seen
        assert len(seen) == len(paths) == model.layer_attentions[stage].num_blocks
        for path, (x, shortcut) in zip(paths, seen, strict=True):
            assert x.ndim == 4 and x.shape == shortcut.shape
            given, returned = blocks[path]
            for actual, expected in ((x, returned), (shortcut, given)):
                if expected.ndim == 3:  # class token and distillation token are not seen
                    actual = actual.flatten(2).transpose(1, 2)
                    expected = expected[:, expected.shape[1] - actual.shape[1] :]
                assert torch.equal(actual, expected)


@pytest.mark.parametrize('name', HOSTS)
def test_only_blocks_that_keep_the_shape_have_one(name):
    model = build(name)
    paths = [path for paths in model.attended_blocks.values() for path in paths]
    shapes = {}
    for path in paths:
        hook = lambda m, args, out, key=path: shapes.update({key: (args[0].shape, out.shape)})  # noqa: E731
        model.get_submodule(path).register_forward_hook(hook)
    run(model)
    assert shapes.keys() == set(paths)
    for path, (given, returned) in shapes.items():
        assert given == returned, path
    # in a ResNet that is every block but the first of a stage
    for layer in getattr(model, 'res_layers', ()):
        kept = [path for path in paths if path.startswith(f'{layer}.')]
        blocks = getattr(model, layer)
        assert len(kept) == len(blocks) - 1
        assert isinstance(blocks, nn.Sequential) and f'{layer}.0' not in kept


def test_an_attention_that_was_loaded_is_not_started_anew(tmp_path):
    """``Pretrained`` of a checkpoint with trained attention."""
    trained = build('mmpretrain.ConvNeXt', zero_init_attention=False)
    torch.save(trained.state_dict(), tmp_path / 'trained.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'trained.pth'))
    model = build('mmpretrain.ConvNeXt', host=dict(init_cfg=init_cfg))
    for (name, a), b in zip(trained.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    norm = model.layer_attentions['0'].blocks[0].norm.weight
    assert norm.any()


def test_frozen_stages_learn_attention():
    model = build('mmdet.SwinTransformer', host=dict(frozen_stages=4))
    model.train()
    learns = {n for n, p in model.named_parameters() if p.requires_grad}
    attention = {n for n, _ in model.named_parameters() if n.startswith(OURS)}
    assert attention and learns == attention
    assert not model.stages[0].training and model.layer_attentions['0'].training


def test_channels_last():
    host, model = build_host('mmdet.RegNet'), build('mmdet.RegNet')
    model.load_state_dict(host.state_dict(), strict=False)
    x = image().contiguous(memory_format=torch.channels_last)
    assert_equal(model(x), host(x))


FOUR_STAGES = dict(num_stages=4, strides=(1, 2, 2, 2), dilations=(1, 1, 1, 1), out_indices=(3,))


@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('mmpretrain.SwinTransformer', {}),
        ('mmpretrain.ConvNeXt', {}),
        ('mmpretrain.DistilledVisionTransformer', {}),
        ('mmpretrain.ResNeSt', FOUR_STAGES),
    ],
)
def test_layer_wise_learning_rates(name, options):
    """An attention has the depth of the host's block before it, as the host counts."""
    host = MODELS.build(dict(type=name, **{**HOSTS[name], **options}))
    model = build(name, host=options)
    for parameter, _ in host.named_parameters():
        expected = host.get_layer_depth(f'backbone.{parameter}', 'backbone.')
        assert model.get_layer_depth(f'backbone.{parameter}', 'backbone.') == expected
    seen = set()
    for stage, paths in model.attended_blocks.items():
        depths = [host.get_layer_depth(f'backbone.{path}.weight', 'backbone.') for path in paths]
        seen |= set(depths)
        for parameter, _ in model.layer_attentions[stage].named_parameters():
            _, number, *_ = parameter.split('.')
            expected = depths[int(number)] if parameter.startswith('blocks.') else depths[-1]
            full = f'backbone.{OURS}{stage}.{parameter}'
            assert model.get_layer_depth(full, 'backbone.') == expected
    assert len(seen) > 2


def test_no_layer_depth_where_the_host_has_none():
    assert not hasattr(build('mmdet.SwinTransformer'), 'get_layer_depth')
