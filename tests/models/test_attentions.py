"""What every layer attention keeps, in every kind of ResNet."""

import copy

import pytest
import torch

from mmdla import DLAResNet, DLAResNet_CIFAR, fold_for_inference
from mmdla.models.layer_attention import known_types
from mmdla.models.layer_attention.heads import Heads

BUILDERS = {
    'r18': lambda **kw: DLAResNet(18, base_channels=32, **kw),
    'r50': lambda **kw: DLAResNet(50, base_channels=16, **kw),
    'cifar20': lambda **kw: DLAResNet_CIFAR(20, **kw),
}
CASES = [(network, kind) for network in BUILDERS for kind in known_types()]


def make(network, kind, **kwargs):
    torch.manual_seed(0)
    attention = dict(type=kind)
    if kind in ('DLALight', 'DLABase', 'DIALSTM', 'SE'):
        attention['reduction'] = 4
    model = BUILDERS[network](layer_attention=attention, zero_init_residual=False, **kwargs)
    for module in model.modules():  # small activations, so that no sigmoid saturates
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.constant_(module.weight, 0.2)
    return model


@pytest.mark.parametrize(('network', 'kind'), CASES)
def test_every_parameter_gets_a_gradient(network, kind):
    model = make(network, kind).double().train()
    outs = model(torch.randn(2, 3, 64, 64, dtype=torch.float64))
    sum((out * torch.randn_like(out)).sum() for out in outs).backward()
    assert all(p.grad is not None for p in model.parameters())
    dead = {n for n, p in model.named_parameters() if not p.grad.any()}
    if kind in ('MRLABase', 'DLABase'):  # the first block's softmax has one entry, whatever q is
        dead = {n for n in dead if not n.endswith('blocks.0.query.weight')}
    assert not dead


@pytest.mark.parametrize(('network', 'kind'), CASES)
def test_eval_depends_on_the_image_alone(network, kind):
    model = make(network, kind).eval()
    x = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        once, again = model(x)[-1], model(x)[-1]
        alone = torch.cat([model(x[i : i + 1])[-1] for i in range(3)])
    assert torch.equal(once, again)
    torch.testing.assert_close(once, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('network', 'kind'), CASES)
def test_layouts_and_precisions(network, kind):
    model = make(network, kind).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = model(x)[-1]
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        got = last(x.contiguous(memory_format=torch.channels_last))[-1]
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            half = model(x)[-1].float()
    assert (half - expected).norm() < 0.05 * expected.norm()


@pytest.mark.parametrize(('network', 'kind'), CASES)
def test_checkpointing_changes_nothing(network, kind):
    model, saving = make(network, kind).train(), make(network, kind, with_cp=True).train()
    x = torch.randn(2, 3, 32, 32)
    for each in (model, saving):
        each(x)[-1].square().sum().backward()
    for (name, a), b in zip(model.named_parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(model.named_buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.parametrize(('network', 'kind'), CASES)
def test_trains_in_half_precision_and_channels_last(network, kind):
    model = make(network, kind).train().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = model(x)[-1]
    out.float().square().sum().backward()
    for name, p in model.named_parameters():
        assert p.dtype == torch.float32 and p.grad is not None and p.grad.isfinite().all(), name


@pytest.mark.parametrize('kind', known_types())
def test_compiles_without_graph_breaks(kind):
    """For inference; for training torch_tools/test_compilers.py."""
    two = dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1))
    model = make('r18', kind, **two).eval()
    x = torch.randn(2, 3, 64, 64)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend='eager')
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), copy.deepcopy(model)(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(('network', 'kind'), CASES)
def test_folded_for_inference(network, kind):
    model = make(network, kind).train()
    for _ in range(2):  # running statistics that differ from the initial ones
        model(torch.randn(4, 3, 32, 32))
    names = set(model.state_dict())
    folded = fold_for_inference(model)
    x = torch.randn(2, 3, 40, 32)
    with torch.no_grad():
        got, expected = folded(x)[-1], model.eval()(x)[-1]
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert set(model.state_dict()) == names, 'the model itself is left as it was'
    norms = [n for n, m in folded.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    added_to = '.bn1' if kind == 'RLA' else None  # conv1 is not all that this norm follows
    assert all('attention' in name or name[8:] == added_to for name in norms)


@pytest.mark.parametrize('kind', ['DLALight', 'DLABase', 'MRLALight', 'MRLABase'])
def test_heads_have_32_channels_unless_told(kind):
    def widths(**options):
        model = DLAResNet(18, layer_attention=dict(type=kind, **options))
        return {m.head_channels for m in model.modules() if isinstance(m, Heads)}

    assert widths() == {32}
    assert widths(head_channels=16) == {16}
