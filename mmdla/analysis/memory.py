"""Bytes that a training step keeps, counted."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def saved_bytes(model: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes of the distinct storages that autograd keeps for the backward pass of ``forward()``.

    Parameters and buffers of ``model`` are not counted. Works on every device, the meta device
    included, where nothing is computed.
    """
    kept: dict[int, torch.UntypedStorage] = {}  # held, so that no address is used again
    owned = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in owned:
            kept[storage._cdata] = storage
        return tensor.detach()  # an output that its own node keeps would keep that node

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())
