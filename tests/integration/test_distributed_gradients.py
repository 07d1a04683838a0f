"""No attention leaves a parameter without a gradient, which would stop distributed training."""

import itertools

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import distributed

from mmdla import DLAResNet
from mmdla.models.layer_attention import known_types

# frozen_stages, freeze_attention, with_cp
SETTINGS = [*itertools.product((0, 1, 2), (False, True), (False,)), (1, False, True)]


@pytest.fixture(scope='module')
def process_group(tmp_path_factory):
    """Of this process alone."""
    file = tmp_path_factory.mktemp('group') / 'store'
    distributed.init_process_group('gloo', init_method=f'file://{file}', rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.parametrize('kind', [*known_types(), None])
def test_every_parameter_takes_part(process_group, kind):
    """DDP raises in the second step if the first left a parameter without a gradient."""
    x = torch.randn(2, 3, 32, 32)
    attention = kind and dict(type=kind)
    for frozen_stages, freeze_attention, with_cp in SETTINGS:
        backbone = DLAResNet(
            18,
            base_channels=32,
            frozen_stages=frozen_stages,
            freeze_attention=freeze_attention,
            layer_attention=attention,
            with_cp=with_cp,
        )
        model = MMDistributedDataParallel(backbone, find_unused_parameters=False).train()
        for _ in range(2):
            model.zero_grad()
            sum(out.square().mean() for out in model(x)).backward()
        for name, parameter in backbone.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name


def test_a_parameter_that_takes_no_part_is_noticed(process_group):
    backbone = DLAResNet(18, base_channels=32)
    backbone.unused = torch.nn.Parameter(torch.zeros(1))
    model = MMDistributedDataParallel(backbone, find_unused_parameters=False)
    x = torch.randn(2, 3, 32, 32)
    model(x)[-1].mean().backward()
    with pytest.raises(RuntimeError, match='did not receive grad'):
        model(x)
