"""Record what the layer attentions of a backbone do, without changing what it computes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from mmengine.model import is_model_wrapper
from torch import nn

from ...models.resnet import DLAResNet
from .recorders import RECORDERS, Recorder, recorder_for
from .records import StageRecord, join_records


class Recording:
    """The forward passes that :func:`record` has seen.

    Attributes:
        backbones (list[str]): Names of the backbones that are recorded, ``''`` for the model.
    """

    def __init__(self, backbones: Sequence[str] = ('',)) -> None:
        self.backbones = list(backbones)
        self._passes: dict[str, list[list[StageRecord]]] = {name: [] for name in backbones}

    @property
    def passes(self) -> list[list[StageRecord]]:
        """For every pass its stages; those of the first backbone first."""
        return [stages for passes in self._passes.values() for stages in passes]

    def add(self, backbone: str, stages: list[StageRecord]) -> None:
        """Add a pass of a backbone."""
        self._passes[backbone].append(stages)

    def stages(self, backbone: str | None = None) -> list[StageRecord]:
        """Return the stages, with the images of all passes.

        Args:
            backbone (str, optional): Name of one of several backbones, or of a part of the model
                that holds one. Default: all, each stage named after its backbone, e.g.
                ``'teacher.layer3'``, without those that did not run.

        Raises:
            ValueError: There was no pass, or no such backbone.
        """
        if backbone is None and len(self.backbones) > 1:
            joined = {name: join_records(p) for name, p in self._passes.items() if p}
            if not joined:
                raise ValueError('no forward pass was recorded')
            return [
                replace(stage, stage=f'{name}.{stage.stage}'.lstrip('.'))
                for name, stages in joined.items()
                for stage in stages
            ]
        name = self.backbones[0] if backbone is None else _name_in(self.backbones, backbone)
        return join_records(self._passes[name])


def find_backbones(
    model: nn.Module, backbone: str | nn.Module | None = None
) -> dict[str, DLAResNet]:
    """Return the backbones of ours in a model, or in a wrapper around one, by name.

    Args:
        model (nn.Module): A detector, a classifier, or several models in one.
        backbone (str | nn.Module, optional): One of them, or a part that holds one.

    Raises:
        ValueError: There is none, or no such one.
    """
    while is_model_wrapper(model):
        model = model.module
    found = {n: m for n, m in model.named_modules() if isinstance(m, DLAResNet)}
    if not found:
        raise ValueError(f'model must contain a DLAResNet, {type(model).__name__} has none')
    if isinstance(backbone, nn.Module):
        name = next((n for n, m in model.named_modules() if m is backbone), None)
        if name is None:
            kind = type(backbone).__name__
            raise ValueError(f'backbone: this {kind} is no part of {type(model).__name__}')
        backbone = name
    if backbone is not None:
        name = _name_in(list(found), backbone)
        return {name: found[name]}
    return found


def find_backbone(model: nn.Module, backbone: str | nn.Module | None = None) -> DLAResNet:
    """Return the one backbone of ours; see :func:`find_backbones`.

    Raises:
        ValueError: There is none, or there are several and none of them was chosen.
    """
    found = find_backbones(model, backbone)
    if len(found) > 1:
        raise ValueError(
            f'{type(model).__name__} has {len(found)} backbones, one must be chosen: '
            f'backbone={" or ".join(map(repr, found))}'
        )
    return next(iter(found.values()))


def _name_in(names: Sequence[str], wanted: str) -> str:
    """Return the backbone of that name, or the only one in the part of that name."""
    inside = [name for name in names if name == wanted or name.startswith(f'{wanted}.')]
    if len(inside) != 1:
        raise ValueError(
            f'backbone must be one of {", ".join(map(repr, names))} or a part of the model that '
            f'holds one of them, got {wanted!r}'
        )
    return inside[0]


def make_recorders(backbone: DLAResNet) -> list[Recorder]:
    """Return what observes the stages of a backbone.

    Raises:
        ValueError: Its attention has no weights, gates or context that can be shown.
    """
    recorders = []
    for i, stage in enumerate(backbone.stages):
        recorder = recorder_for(f'layer{i + 1}', stage.attention)
        if recorder is None:
            kind = type(stage.attention).__name__ if stage.attention is not None else 'None'
            known = ', '.join(
                sorted(t.__name__ for cls in RECORDERS for t in _family(cls.attentions))
            )
            raise ValueError(
                'layer_attention must be one whose weights between blocks or context can be shown '
                f'({known}), got {kind}'
            )
        recorders.append(recorder)
    return recorders


def _family(cls: type) -> Iterator[type]:
    yield cls
    for subclass in cls.__subclasses__():
        yield from _family(subclass)


def make_all_recorders(backbones: dict[str, DLAResNet]) -> dict[str, list[Recorder]]:
    """Return what observes the backbones whose attention has something to show, by name.

    Raises:
        ValueError: None of them has.
    """
    recorders, errors = {}, []
    for name, backbone in backbones.items():
        try:
            recorders[name] = make_recorders(backbone)
        except ValueError as error:
            errors.append(error)
    if not recorders:
        raise errors[0]
    return recorders


@contextmanager
def record(model: nn.Module, backbone: str | nn.Module | None = None) -> Iterator[Recording]:
    """Record every forward pass of a model's backbone.

    Hooks on the submodules of the attentions are there inside of the ``with`` block and nowhere
    else, so it costs nothing when off; what the model computes, and the gradients, stay the same
    bit for bit. The blocks that gradient checkpointing runs again in the backward pass are not
    recorded again. A model compiled by ``torch.compile`` runs without hooks and records nothing.

    In a model with several backbones of ours (a student and its teacher) all are recorded whose
    attention has something to show, and the names of the stages start with those of the backbones.

    Args:
        model (nn.Module): A backbone of ours, or anything that contains one.
        backbone (str | nn.Module, optional): Which of several backbones, as a module or by the
            name of one or of a part that holds one, e.g. ``'student'``. Default: all.

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
        >>> tuple(recording.stages()[0].weights.shape)  # images, heads, blocks, blocks
        (1, 2, 2, 2)
    """
    backbones = find_backbones(model, backbone)
    recorders = make_all_recorders(backbones)
    recording = Recording(list(recorders))
    with ExitStack() as stack:
        for name, of_backbone in recorders.items():
            stack.enter_context(_recorded(backbones[name], name, of_backbone, recording))
        yield recording


@contextmanager
def _recorded(
    backbone: DLAResNet, name: str, recorders: list[Recorder], recording: Recording
) -> Iterator[None]:
    """Add every pass of one backbone to a recording."""
    during_pass = ExitStack()  # hooks that a recomputation, after the pass, must not meet

    def start(*_) -> None:
        during_pass.close()  # of a pass that an error broke off
        for recorder in recorders:
            recorder.start()
            for remove in recorder.attach():
                during_pass.callback(remove)

    def finish(*_) -> None:
        during_pass.close()
        recording.add(name, [recorder.finish() for recorder in recorders])

    handles = backbone.register_forward_pre_hook(start), backbone.register_forward_hook(finish)
    try:
        yield
    finally:
        during_pass.close()
        for handle in handles:
            handle.remove()
