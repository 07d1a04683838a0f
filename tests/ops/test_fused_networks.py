"""Whole networks: what the fused operations keep, when they run, and what they never touch."""

import copy

import pytest
import torch
from attention_lists import FUSED, OTHERS, small
from mmcv.cnn.bricks import DropPath
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmdla import DLABase, DLALight, DLAResNet
from mmdla.analysis.memory import saved_bytes
from mmdla.ops import choice


class Operations(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))

    @property
    def fused(self):
        return [name for name in self.names if name.startswith('mmdla')]


def network(kind='DLALight', ops='auto', depth=18, **kwargs):
    torch.manual_seed(0)
    attention = dict(small(kind), ops=ops)
    model = DLAResNet(depth, base_channels=8, stem_channels=8, layer_attention=attention, **kwargs)
    return model.double()


def images(n=2, size=48):
    return torch.randn(n, 3, size, size, dtype=torch.float64)


def runs_fused(model, x=None):
    """Which fused operations a pass has, with ``ops='fast'`` seen by a dispatch mode."""
    with Operations() as seen:
        model(images() if x is None else x)
    return seen.fused


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', FUSED)
def test_fused_unless_observed(kind, training):
    model = network(kind, 'fast').train(training)
    whole = len(runs_fused(model))
    assert whole >= 8
    stage = model.layer2
    watched = [stage[1], stage[1].relu, stage.attention, stage.attention.blocks[1].norm]
    watched += [stage.attention.blocks[1].value, stage.attention.blocks[1].query]
    for module in watched:
        handle = module.register_forward_hook(lambda *_: None)
        assert len(runs_fused(model)) < whole, type(module).__name__
        handle.remove()
        assert len(runs_fused(model)) == whole


def test_modes_and_settings_decide(monkeypatch):
    monkeypatch.delenv('MMDLA_OPS', raising=False)
    assert not runs_fused(network('DLALight', 'auto')), 'a dispatch mode looks into it'
    assert not runs_fused(network('DLALight', 'reference'))
    assert runs_fused(network('DLALight', 'fast'))
    assert not runs_fused(network('DLALight', 'fast'), images(0)), 'nothing to do'
    monkeypatch.setenv('MMDLA_OPS', 'fast')
    assert runs_fused(network('DLALight', 'auto'))
    monkeypatch.setenv('MMDLA_OPS', 'quick')
    with pytest.raises(ValueError, match='MMDLA_OPS must be one of auto, reference, fast'):
        network('DLALight', 'auto')(images())


def test_a_default_device_is_nobody_who_looks():
    model = network('DLALight', 'auto')
    calls = []
    fused = type(model.layer1.attention).train_step
    model.layer1.attention.train_step = lambda *a: (
        calls.append(1) or fused(model.layer1.attention, *a)
    )
    with torch.device('cpu'):
        model(images())
    assert len(calls) == 2


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda m: m.to('meta'), 'meta'),
        (None, 'GroupNorm'),
    ],
)
def test_fast_says_what_it_cannot_do(change, words):
    norm = dict(norm_cfg=dict(type='GN', num_groups=4)) if change is None else {}
    model = network('DLALight', 'fast', **norm).eval()
    model = model if change is None else change(model)
    x = images().to(next(model.parameters()))
    with pytest.raises(RuntimeError, match=f"ops='fast' cannot be used: .*{words}"):
        model(x)


TWO_STAGES = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
LAYOUTS = pytest.mark.parametrize(
    'layout', [torch.contiguous_format, torch.channels_last], ids=['nchw', 'nhwc']
)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('kind', FUSED)
@LAYOUTS
def test_fused_in_every_layout_and_precision(layout, kind, training):
    """Outputs, in the layout of the input, and gradients: no further from float64 than the modules'."""
    x = images(4).contiguous(memory_format=layout)
    found = {}
    for ops in ('reference', 'fast'):
        original = network(kind, ops, **TWO_STAGES).train(training).to(memory_format=layout)
        for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
            whole = torch.float32 if dtype is torch.bfloat16 else dtype  # that under autocast
            model = copy.deepcopy(original).to(whole)
            with Operations() as seen, torch.autocast('cpu', torch.bfloat16, whole is not dtype):
                outs = model(x.to(whole))
            assert len(seen.fused) >= 4 if ops == 'fast' else not seen.fused
            assert all(out.is_contiguous(memory_format=layout) for out in outs)
            assert outs[-1].dtype is dtype
            loss = sum(out.double().square().mean() for out in outs)
            weights = model.layer1[0].conv1.weight, model.layer1.attention.blocks[0].value.weight
            found[ops, dtype] = [*outs, *torch.autograd.grad(loss, weights)]

    def errors(ops, dtype):
        for a, b in zip(found[ops, dtype], found['reference', torch.float64], strict=True):
            yield ((a.double() - b).square().mean() / b.square().mean()).sqrt().item()

    assert max(errors('fast', torch.float64)) < 1e-9
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for fused, modules in zip(errors('fast', dtype), errors('reference', dtype), strict=True):
            assert fused < 1.5 * modules + 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize('kind', FUSED)
def test_nan_is_not_hidden(kind):
    model = network(kind, 'fast').eval()
    nn.init.constant_(model.layer4.attention.blocks[-1].value.weight, torch.nan)
    with torch.no_grad():
        assert model(images())[-1].isnan().all()


@pytest.mark.parametrize('kind', FUSED)
def test_drop_path_is_the_same(kind):
    outs = []
    for ops in ('reference', 'fast'):
        model = network(kind, ops, drop_path_rate=0.3).train()
        for module in model.modules():
            if hasattr(module, 'head_channels') and isinstance(module.drop_path, nn.Identity):
                module.drop_path = DropPath(0.4).train()
        torch.manual_seed(1)
        out = model(images(4))[-1]
        outs.append([out, *torch.autograd.grad(out.square().sum(), model.conv1.weight)])
    for a, b in zip(*outs, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9)


class Doubled(DLALight):
    """Overrides a documented method with its documented signature."""

    def attend(self, index, x, shortcut, state):
        out, state = super().attend(index, x, shortcut, state)
        return 2 * out, state


class Counting(DLABase):
    def forward(self, index, x, shortcut, state, before_sum=False):
        self.calls = getattr(self, 'calls', 0) + 1
        return super().forward(index, x, shortcut, state, before_sum)


def test_subclasses_run_what_they_override():
    x = images()
    outs = {}
    for kind in (DLALight, Doubled):
        torch.manual_seed(0)
        attention = dict(type=kind, head_channels=8, reduction=4)
        model = DLAResNet(
            18, base_channels=8, stem_channels=8, num_stages=1, strides=(1,), dilations=(1,),
            layer_attention=attention,
        ).double().eval()  # fmt: skip
        outs[kind] = (
            model(x)[0],
            model.layer1[0](model.maxpool(model.relu(model.norm1(model.conv1(x))))),
        )
    assert not torch.allclose(outs[DLALight][0], outs[Doubled][0])
    torch.testing.assert_close(outs[DLALight][1], outs[Doubled][1])
    model = DLAResNet(
        18, base_channels=8, stem_channels=8,
        layer_attention=dict(type=Counting, head_channels=8, reduction=4),
    )  # fmt: skip
    model(images().float())
    assert model.layer1.attention.calls == 2


@pytest.mark.parametrize('kind', FUSED)
def test_a_pass_writes_only_its_own_maps(kind):
    """In eval mode operations write in place: never into what a module gave to somebody."""
    model, kept = network(kind, 'auto', depth=50).eval(), []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
            module.register_forward_hook(lambda _, __, out: kept.append((out, out.clone())))
    with torch.no_grad():
        model(images())
    assert len(kept) > 100
    assert all(torch.equal(out, then) for out, then in kept)
    x = images()
    before = x.clone()
    with torch.no_grad():
        network(kind, 'fast').eval().layer1(network(kind).maxpool(network(kind).conv1(x)))
    assert torch.equal(x, before)


@pytest.mark.parametrize('depth', [18, 50])
@pytest.mark.parametrize('kind', FUSED)
def test_residuals_that_somebody_keeps(kind, depth, monkeypatch):
    """Hooks on layers that fused operations leave alone; what these read may be kept."""
    model, kept, fused = network(kind, 'auto', depth).eval(), [], []
    infer = type(model.layer1.attention).infer
    monkeypatch.setattr(
        type(model.layer1.attention), 'infer', lambda *args: fused.append(args) or infer(*args)
    )
    last = 2 if depth == 18 else 3
    x = torch.randn(2, model.layer1[0].in_channels, 9, 7, dtype=torch.float64)
    for block in model.layer1:
        kept.clear(), fused.clear()
        for layer in (block.conv(last), block.last_norm, block.drop_path):
            handle = layer.register_forward_hook(lambda _, __, out: kept.append((out, out.clone())))
            with torch.no_grad():
                model.layer1(x)
            handle.remove()
        assert len(kept) == 3 and all(torch.equal(out, then) for out, then in kept)
        assert len(fused) == 3 * len(model.layer1)


def test_map_passes_of_the_backward_pass_grow_linearly():
    """The gradients of a value map are one weighted sum, however many blocks have read it."""
    for blocks in (3, 6):
        model = network('DLABase', 'fast', depth=50).train()
        stage = model.layer1 if blocks == 3 else model.layer3
        channels = stage[0].in_channels
        out = stage(torch.randn(2, channels, 8, 8, dtype=torch.float64, requires_grad=True))
        with Operations() as seen:
            out.sum().backward()
        sums = [name for name in seen.fused if name == 'mmdla.weighted_sum.default']
        assert len(sums) == blocks


@pytest.mark.parametrize('kind', FUSED)
def test_keeps_nothing_but_the_maps(kind):
    """Bytes kept for the backward pass, fused, against the modules'."""
    kept = {}
    for ops in ('fast', 'reference'):
        model = network(kind, ops, depth=50).train()
        x = images(2, 64)
        kept[ops] = saved_bytes(model, lambda model=model, x=x: model(x))
    assert kept['fast'] < 0.85 * kept['reference']


def test_requested_ops_are_checked():
    with pytest.raises(ValueError, match="ops must be one of 'auto', 'reference', 'fast'"):
        choice.check_ops('slow')
    model = network('DLALight', 'fast')
    assert copy.deepcopy(model).layer1.attention.ops == 'fast'


@pytest.mark.parametrize('kind', [*FUSED, *OTHERS, None])
@pytest.mark.parametrize('index', [0, 1])
def test_what_a_pre_hook_gives_is_what_a_block_works_on(kind, index):
    """Both branches and the attention, as if the block before had returned it."""
    torch.manual_seed(0)
    stage = DLAResNet(18, base_channels=8, stem_channels=8, layer_attention=small(kind)).layer2
    stage = stage.double().eval()
    if index == 0:
        x = torch.randn(2, 8, 12, 12, dtype=torch.float64)
        expected = stage(2 * x)
        stage[0].register_forward_pre_hook(lambda _, args: 2 * args[0])
        torch.testing.assert_close(stage(x), expected)
        return
    x, kept = torch.randn(2, 8, 12, 12, dtype=torch.float64), []
    stage[1].register_forward_pre_hook(
        lambda _, args: kept.append(args[0]) or torch.ones_like(args[0])
    )
    if stage.attention is not None:
        stage.attention.register_forward_pre_hook(lambda _, args: kept.append(args[2]))
    stage(x)
    if stage.attention is not None:
        assert torch.equal(kept[-1], torch.ones_like(kept[-1])), 'the shortcut of the last block'
