"""Which path runs where nobody asks for one."""

import pytest
import torch

from mmdla import DLAResNet
from mmdla.ops import full, light

KINDS = ['DLALight', 'DLABase', 'MRLALight', 'MRLABase']


@pytest.fixture
def paths(monkeypatch):
    """Whether each call of an attention took the fast path."""
    monkeypatch.delenv('MMDLA_OPS', raising=False)
    taken = []
    for module in (light, full):
        choose = module.takes_fast_path

        def record(*args, choose=choose):
            taken.append(choose(*args))
            return taken[-1]

        monkeypatch.setattr(module, 'takes_fast_path', record)
    return taken


def model(kind, **options):
    return DLAResNet(18, layer_attention=dict(type=kind), base_channels=32, **options)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('kind', KINDS)
def test_cpu_runs_its_kernels(paths, kind, dtype):
    x = torch.rand(2, 3, 32, 32, dtype=dtype)
    for training in (True, False):
        paths.clear()
        model(kind).to(dtype).train(training)(x)
        assert paths and all(paths)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('case', ['autocast', 'channels_last', 'other norm', 'bfloat16'])
def test_elsewhere_the_reference_runs(paths, kind, case):
    options = dict(norm_cfg=dict(type='GN', num_groups=8)) if case == 'other norm' else {}
    network, x = model(kind, **options), torch.rand(2, 3, 64, 64)  # 1x1 maps are in any layout
    if case == 'channels_last':
        network, x = (v.to(memory_format=torch.channels_last) for v in (network, x))
    elif case == 'bfloat16':
        network, x = network.bfloat16(), x.bfloat16()
    with torch.autocast('cpu', torch.bfloat16, enabled=case == 'autocast'):
        network(x)
    assert paths and not any(paths)
