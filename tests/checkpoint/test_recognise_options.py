"""The options of an attention, read back from the weights of a network that has them."""

import pytest

from mmdla import DLAResNet, DLAResNet_CIFAR
from mmdla.checkpoint.recognise_options import kcla_options, rla_options

SMALL = dict(base_channels=8, stem_channels=8)


@pytest.mark.parametrize('eca', [False, True])
@pytest.mark.parametrize('append_state', [False, True])
def test_rla(eca, append_state):
    flags = {k: True for k, v in dict(eca=eca, append_state=append_state).items() if v}
    attention = dict(type='RLA', hidden_channels=5, **flags)
    state = DLAResNet(18, **SMALL, layer_attention=attention).state_dict()
    assert rla_options(state, cifar=False) == dict(hidden_channels=5, **flags)


@pytest.mark.parametrize('restart', [1, 4, None])
@pytest.mark.parametrize('width', [4, 8])
def test_kcla(restart, width):
    attention = dict(type='KCLA', head_channels=width, restart_block=restart)
    state = DLAResNet(50, **SMALL, layer_attention=attention).state_dict()
    found = {} if restart is None else dict(restart_block=restart)
    assert kcla_options(state, cifar=False) == dict(head_channels=width, **found)


def test_kcla_of_cifar_says_that_nothing_restarts():
    attention = dict(type='KCLA', head_channels=8, restart_block=None)
    state = DLAResNet_CIFAR(20, layer_attention=attention).state_dict()
    assert kcla_options(state, cifar=True) == dict(head_channels=8, restart_block=None)
