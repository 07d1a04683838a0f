"""Each reason for which modules run in place of the fused operations, by itself."""

import pytest
import torch
from torch import nn
from torch.nn.modules import module as global_hooks
from torch.nn.utils import parametrizations

from mmdla.ops import backend
from mmdla.ops.choice import is_observed, kernels_run


@pytest.fixture(autouse=True)
def no_setting(monkeypatch):
    monkeypatch.delenv('MMDLA_OPS', raising=False)


def test_kernels_that_have_to_be_asked_for(monkeypatch):
    """Those of GPUs; here the CPU's stand for them."""
    x = torch.randn(1, 2, 3, 3)
    assert kernels_run('auto', x) and kernels_run('fast', x)
    asked = backend.BACKENDS['cpu']._replace(enabled_by_default=False)
    monkeypatch.setitem(backend.BACKENDS, 'cpu', asked)
    assert not kernels_run('auto', x)
    assert kernels_run('fast', x)
    monkeypatch.delitem(backend.BACKENDS, 'cpu')
    assert not kernels_run('auto', x)
    with pytest.raises(RuntimeError, match='there are no kernels for cpu'):
        kernels_run('fast', x)


def test_which_run_unless_told():
    defaults = {device: kind.enabled_by_default for device, kind in backend.BACKENDS.items()}
    assert defaults == dict(cpu=True, cuda=False)


def test_reasons_of_the_caller():
    x = torch.randn(1, 2, 3, 3)
    assert not kernels_run('auto', x, reason=lambda: 'no')
    with pytest.raises(RuntimeError, match='cannot be used: no'):
        kernels_run('fast', x, reason=lambda: 'no')


def test_maps_that_kernels_do_not_take():
    for wrong, words in (
        (torch.zeros(1, 2, 3, 3, dtype=torch.int32), 'need .*float32.* got torch.int32'),
        (torch.randn(1, 2, 4, 6)[..., ::2], 'NCHW or channels_last'),
    ):
        assert not kernels_run('auto', wrong)
        with pytest.raises(RuntimeError, match=words):
            kernels_run('fast', wrong)
    assert not kernels_run('fast', torch.randn(0, 2, 3, 3)), 'nothing to do'


OBSERVING = {
    'forward hook': lambda m: m.register_forward_hook(lambda *_: None),
    'forward pre-hook': lambda m: m.register_forward_pre_hook(lambda *_: None),
    'backward hook': lambda m: m.register_full_backward_hook(lambda *_: None),
    'backward pre-hook': lambda m: m.register_full_backward_pre_hook(lambda *_: None),
    'every forward': lambda _: global_hooks.register_module_forward_hook(lambda *_: None),
    'before every forward': lambda _: global_hooks.register_module_forward_pre_hook(
        lambda *_: None
    ),
    'every backward': lambda _: global_hooks.register_module_full_backward_hook(lambda *_: None),
    'before every backward': lambda _: global_hooks.register_module_full_backward_pre_hook(
        lambda *_: None
    ),
}


@pytest.mark.parametrize('kind', OBSERVING)
def test_hooks(kind):
    x, module = torch.randn(1, 2, 3, 3), nn.ReLU()
    assert kernels_run('auto', x, [module]) and not is_observed(module)
    handle = OBSERVING[kind](module)
    try:
        assert is_observed(module)
        assert not kernels_run('auto', x, [nn.ReLU(), module])
        assert not kernels_run('fast', x, [module])
    finally:
        handle.remove()
    assert not is_observed(module)


def test_changed_modules():
    module = nn.Linear(2, 2)
    module.forward = lambda x: x
    assert is_observed(module)
    assert is_observed(parametrizations.weight_norm(nn.Linear(2, 2)))
