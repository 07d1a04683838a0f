"""Bytes that a training step keeps for its backward pass, counted, not timed."""

import pytest
import torch

from mmdla import DLAResNet, DLAResNet_CIFAR
from mmdla.analysis.memory import saved_bytes

GIB = 2**30


def saved(model, shape) -> int:
    return saved_bytes(model, lambda: model.train()(torch.empty(shape, device='meta')))


def cifar(depth: int, attention: dict | None) -> int:
    with torch.device('meta'):
        model = DLAResNet_CIFAR(depth, layer_attention=attention)
    return saved(model, (128, 3, 32, 32))


@pytest.mark.parametrize('kind', ['DLABase', 'MRLABase', 'DLALight', 'MRLALight'])
def test_grows_linearly_with_depth(kind):
    attention = dict(type=kind)
    assert cifar(110, attention) <= 2.05 * cifar(56, attention)


def test_dla_b_at_detection_size():
    """The backbone of a detector with everything trainable, and its gradients, in 14 GB."""
    with torch.device('meta'):
        model = DLAResNet(50, layer_attention=dict(type='DLABase'))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert saved(model, (2, 3, 800, 1216)) + 2 * weights < 14 * GIB


def test_checkpointing_saves():
    sizes = []
    for with_cp in (False, True):
        with torch.device('meta'):
            model = DLAResNet(50, layer_attention=dict(type='DLALight'), with_cp=with_cp)
        sizes.append(saved(model, (2, 3, 224, 224)))
    assert sizes[1] < 0.4 * sizes[0]


@pytest.mark.parametrize(
    ('make', 'size', 'attention', 'limit'),
    [
        (lambda **kw: DLAResNet(50, **kw), 224, dict(type='DLALight'), 1.4),
        (lambda **kw: DLAResNet(50, **kw), 224, dict(type='MRLALight'), 1.4),
        (lambda **kw: DLAResNet_CIFAR(110, **kw), 32, dict(type='DLABase', reduction=4), 1.8),
    ],
    ids=['dla_l', 'mrla_l', 'dla_b'],
)
def test_fast_path_keeps_little_more_than_a_plain_resnet(make, size, attention, limit):
    sizes = []
    for cfg in (None, attention):
        model = make(layer_attention=cfg).train()
        x = torch.randn(2, 3, size, size)
        sizes.append(saved_bytes(model, lambda model=model, x=x: model(x)))
    assert sizes[1] <= limit * sizes[0]
