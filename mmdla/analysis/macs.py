"""Count the multiply-adds of what runs, of all of it and of parts."""

from collections import Counter
from contextlib import AbstractContextManager, ExitStack

from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmdla.models.resnet.stage import ResStage

ATTENTION = 'layer attention'


class MacCounter(AbstractContextManager):
    """Count while it is open: ``with MacCounter(model) as counter: model(x)``.

    PyTorch's counter sees convolutions and matrix products; the sums over blocks of the layer
    attentions are added to it. Its own counts by module are not used: it names what is called by
    itself, as the parts of a detector are, after the class, so that two heads would be one.

    Args:
        model (nn.Module): What runs, or what the modules that run are part of.
        parts (dict[str, nn.Module]): Parts that are counted by themselves too.

    Attributes:
        shares (Counter): Multiply-adds of every part, and of :data:`ATTENTION`.
    """

    def __init__(self, model: nn.Module, parts: dict[str, nn.Module] | None = None) -> None:
        self.stages = [module for module in model.modules() if isinstance(module, ResStage)]
        self.parts = parts or {}
        self.shares: Counter[str] = Counter()
        self._flops = FlopCounterMode(display=False)
        self._sums = 0
        self._running: Counter[str] = Counter()  # modules of a part, one within the other
        self._open = ExitStack()

    @property
    def total(self) -> int:
        return self._flops.get_total_flops() // 2 + self._sums

    def __enter__(self) -> 'MacCounter':
        for stage in self.stages:
            if stage.attention is not None:
                self._open.callback(stage.register_forward_hook(self._add_sums).remove)
                for module in stage.attention.modules():  # the stage may call parts by themselves
                    self._count_apart(ATTENTION, module)
        for name, part in self.parts.items():
            self._count_apart(name, part)
        self._open.enter_context(self._flops)
        return self

    def __exit__(self, *error) -> None:
        self._open.close()

    def _start(self, name: str) -> None:
        if not self._running[name]:
            self.shares[name] -= self.total
        self._running[name] += 1

    def _stop(self, name: str) -> None:
        self._running[name] -= 1
        if not self._running[name]:
            self.shares[name] += self.total

    def _add_sums(self, stage: ResStage, _, out: Tensor) -> None:
        counts = (stage.attention.maps_summed(i) for i in range(len(stage)))
        added = sum(counts) * out.numel()
        self._sums += added
        self.shares[ATTENTION] += added

    def _count_apart(self, name: str, module: nn.Module) -> None:
        before = module.register_forward_pre_hook(lambda *_: self._start(name))
        after = module.register_forward_hook(lambda *_: self._stop(name))
        self._open.callback(before.remove)
        self._open.callback(after.remove)
