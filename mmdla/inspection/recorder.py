"""Record what the layer attentions of a backbone do, without changing what it computes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from ..models.resnet import DLAResNet
from .records import StageRecord, join_records
from .taps import TAPS, Tap, tap_for


class Recording:
    """The forward passes that :func:`record` has seen.

    Attributes:
        passes (list[list[StageRecord]]): For every pass, its stages.
    """

    def __init__(self) -> None:
        self.passes: list[list[StageRecord]] = []

    def stages(self) -> list[StageRecord]:
        """The stages, with the pictures of all passes.

        Raises:
            ValueError: There was no pass.
        """
        return join_records(self.passes)


def find_backbone(model: nn.Module) -> DLAResNet:
    """The one backbone of ours in a detector, a classifier, or a wrapper around one.

    Raises:
        ValueError: There is none, or there are several.
    """
    found = [module for module in model.modules() if isinstance(module, DLAResNet)]
    if len(found) != 1:
        count = f'{len(found)} of them' if found else 'none'
        raise ValueError(f'model must contain one DLAResNet, {type(model).__name__} has {count}')
    return found[0]


def make_taps(backbone: DLAResNet) -> list[Tap]:
    """What observes the stages of a backbone.

    Raises:
        ValueError: Its attention has no weights, gates or context to show.
    """
    taps = []
    for i, stage in enumerate(backbone.stages):
        tap = tap_for(f'layer{i + 1}', stage.attention)
        if tap is None:
            kind = type(stage.attention).__name__ if stage.attention is not None else 'None'
            known = ', '.join(sorted(t.__name__ for cls in TAPS for t in _family(cls.attentions)))
            raise ValueError(
                f'layer_attention must be one that looks at other blocks ({known}), got {kind}: '
                'it has no weights between blocks and no context to show'
            )
        taps.append(tap)
    return taps


def _family(cls: type) -> Iterator[type]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from _family(subclass)


@contextmanager
def record(model: nn.Module) -> Iterator[Recording]:
    """Record every forward pass of a model's backbone.

    Hooks on the submodules of the attentions are there inside of the ``with`` block and nowhere
    else, so it costs nothing when off; what the model computes, and the gradients, stay the same
    bit for bit. The blocks that gradient checkpointing runs again in the backward pass are not
    recorded again. A model compiled by ``torch.compile`` runs without hooks and records nothing.

    Args:
        model (nn.Module): A backbone of ours, or anything that contains one.

    Yields:
        Recording: Filled by the forward passes.

    Raises:
        ValueError: The model has no such backbone, or its attention has nothing to show.

    Example:
        >>> import torch
        >>> from mmdla import DLAResNet, record
        >>> model = DLAResNet(18, layer_attention=dict(type='DLABase')).eval()
        >>> with record(model) as recording:
        ...     outs = model(torch.rand(1, 3, 64, 64))
        >>> tuple(recording.stages()[0].weights.shape)  # pictures, heads, blocks, blocks
        (1, 2, 2, 2)
    """
    backbone = find_backbone(model)
    taps = make_taps(backbone)
    recording = Recording()
    during_pass = ExitStack()  # hooks that a recomputation, after the pass, must not meet

    def start(*_) -> None:
        during_pass.close()  # of a pass that an error broke off
        for tap in taps:
            tap.start()
            for handle in tap.attach():
                during_pass.callback(handle.remove)

    def finish(*_) -> None:
        during_pass.close()
        recording.passes.append([tap.finish() for tap in taps])

    handles = backbone.register_forward_pre_hook(start), backbone.register_forward_hook(finish)
    try:
        yield recording
    finally:
        during_pass.close()
        for handle in handles:
            handle.remove()
