"""Bytes that a training step keeps for its backward pass, counted, not timed."""

import pytest
import torch
from torch import Tensor

from mmdla import DLAResNet, DLAResNet_CIFAR

GIB = 2**30


def saved_bytes(model: torch.nn.Module, shape: tuple[int, ...]) -> int:
    """Bytes of the distinct storages that autograd keeps, parameters apart. Nothing is computed."""
    kept: dict[int, int] = {}
    owned = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    alive = []  # so that no storage is freed and its address used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outs = model.train()(torch.empty(shape, device='meta'))
    del outs
    return sum(kept.values())


def cifar(depth: int, attention: dict | None) -> int:
    with torch.device('meta'):
        model = DLAResNet_CIFAR(depth, layer_attention=attention)
    return saved_bytes(model, (128, 3, 32, 32))


@pytest.mark.parametrize('kind', ['DLABase', 'MRLABase', 'DLALight', 'MRLALight'])
def test_grows_linearly_with_depth(kind):
    attention = dict(type=kind)
    assert cifar(110, attention) <= 2.05 * cifar(56, attention)


def test_dla_b_at_detection_size():
    """The backbone of a detector with everything trainable, and its gradients, in 14 GB."""
    with torch.device('meta'):
        model = DLAResNet(50, layer_attention=dict(type='DLABase'))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert saved_bytes(model, (2, 3, 800, 1216)) + 2 * weights < 14 * GIB


def test_checkpointing_saves():
    sizes = []
    for with_cp in (False, True):
        with torch.device('meta'):
            model = DLAResNet(50, layer_attention=dict(type='DLALight'), with_cp=with_cp)
        sizes.append(saved_bytes(model, (2, 3, 224, 224)))
    assert sizes[1] < 0.4 * sizes[0]
