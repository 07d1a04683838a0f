"""Time and memory of models with layer attention beside the host library's plain ResNet.

Every round runs all models of a case once, in turn; what is reported is the median over the rounds
of the time divided by that of the plain ResNet in the same round, with quartiles.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmdla.analysis.memory import saved_bytes
from mmdla.models import DLAResNet, DLAResNet_CIFAR

MODES = ('inference', 'train', 'train-frozen')  # frozen: of batch norm statistics, norm_eval=True
CIFAR_REDUCTION = 4


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        network (str): ``'r50'`` for a ResNet-50, ``'cifar110'`` for the 110-layer CIFAR one.
        attention (str): Type of the layer attention.
        mode (str): One of ``MODES``.
        shape (tuple[int, ...]): Of the input, (B, 3, H, W).
        channels_last (bool): Memory format of inputs and weights, of the plain ResNet's too.
        amp (str, optional): Dtype of autocast, ``'float16'`` or ``'bfloat16'``, likewise.
        target (float, optional): The ratio that is aimed at.
    """

    network: str
    attention: str
    mode: str
    shape: tuple[int, ...]
    channels_last: bool = False
    amp: str | None = None
    target: float | None = None

    def __str__(self) -> str:
        words = [self.network, self.attention, self.mode, 'x'.join(map(str, self.shape))]
        words += ['channels_last'] if self.channels_last else []
        return ' '.join([*words, *([self.amp] if self.amp else [])])


@dataclass(frozen=True)
class Options:
    """Options that all the cases of a run share.

    Args:
        device (str): E.g. ``'cpu'`` or ``'cuda'``.
        compile (bool): Whether the models are run compiled by ``torch.compile`` too.
        rounds (int): Times that every model is run.
    """

    device: str = 'cpu'
    compile: bool = False
    rounds: int = 5


@dataclass
class Row:
    """Result of one model in one case: times and bytes over those of the plain ResNet.

    ``operations`` are counted: those that PyTorch dispatches, without views; ``target`` is that of
    the case.
    """

    case: str
    model: str
    ratio: float
    quartiles: tuple[float, float]
    saved: float | None = None
    peak: float | None = None
    operations: int | None = None
    target: float | None = None


def plain_resnet(network: str, norm_eval: bool = False) -> nn.Module:
    """Return the host library's ResNet; for CIFAR, where it has none, our own without attention.

    Raises:
        ValueError: There is no such network.
    """
    kind, depth = network.rstrip('0123456789'), network.lstrip('abcdefghijklmnopqrstuvwxyz')
    if kind not in ('r', 'cifar') or not depth:
        raise ValueError(f"expected 'r50' or 'cifar110', got {network!r}")
    with torch.device('meta'):
        if kind == 'cifar':
            return DLAResNet_CIFAR(int(depth), norm_eval=norm_eval)
        try:
            return _host_resnet()(int(depth), norm_eval=norm_eval)
        except KeyError:
            raise ValueError(f'no ResNet-{depth}') from None


def _host_resnet() -> Callable[..., nn.Module]:
    """MMDetection's, or without it our own without attention, which computes the same."""
    try:
        from mmdet.models.backbones import ResNet
    except ImportError:
        return DLAResNet
    return ResNet


def models_of(case: Case, options: Options) -> dict[str, nn.Module]:
    """Return the plain network, ours with the reference operations, ours with the kernels."""
    norm_eval = case.mode == 'train-frozen'
    attention = dict(type=case.attention)
    kind, depth = (DLAResNet_CIFAR, 5) if case.network.startswith('cifar') else (DLAResNet, 1)
    if kind is DLAResNet_CIFAR and case.attention.startswith('DLA'):
        attention['reduction'] = CIFAR_REDUCTION
    depth = int(case.network[depth:])
    models = dict(plain=plain_resnet(case.network, norm_eval).to_empty(device=options.device))
    has_paths = case.attention in ('DLALight', 'DLABase', 'MRLALight', 'MRLABase')
    fused = 'auto' if options.device == 'cpu' else 'fast'  # on a GPU only where asked for
    for ops in ('reference', fused) if has_paths else (None,):
        cfg = attention if ops is None else dict(attention, ops=ops)
        models[ops or 'ours'] = kind(depth, layer_attention=cfg, norm_eval=norm_eval)
    for name, model in models.items():
        torch.manual_seed(0)
        model.to(options.device).init_weights()
        for module in model.modules():  # as after some training, and safe from overflow
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                nn.init.constant_(module.weight, 0.2)
                nn.init.zeros_(module.bias)
        model.train(case.mode != 'inference')
        if case.channels_last:
            model.to(memory_format=torch.channels_last)
        models[name] = model
    if options.compile:
        models |= {f'{name} compiled': torch.compile(model) for name, model in models.items()}
    return models


def step_of(model: nn.Module, case: Case, x: Tensor, options: Options) -> Callable:
    """Return one inference or training step (without optimizer) as a function."""

    def amp() -> AbstractContextManager:
        if case.amp is None:
            return nullcontext()
        return torch.autocast(torch.device(options.device).type, dtype=getattr(torch, case.amp))

    def infer() -> None:
        with torch.no_grad(), amp():
            model(x)

    def train() -> None:
        with amp():
            loss = sum(out.float().mean() for out in model(x))
        loss.backward()
        model.zero_grad()

    return infer if case.mode == 'inference' else train


class _Counter(TorchDispatchMode):
    """Counts the operations that are dispatched, but for those that return a view."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view and func not in _NO_WORK
        return func(*args, **(kwargs or {}))


_NO_WORK = (torch.ops.aten.detach.default, torch.ops.aten._unsafe_view.default)


def count_operations(model: nn.Module, step: Callable) -> int:
    """Operations that PyTorch dispatches in a step, as the model runs when nobody looks."""
    attentions = [m for m in model.modules() if getattr(m, 'ops', None) == 'auto']
    for attention in attentions:  # under a dispatch mode 'auto' would show the modules instead
        attention.ops = 'fast'
    try:
        with _Counter() as counter:
            step()
    finally:
        for attention in attentions:
            attention.ops = 'auto'
    return counter.count


def seconds(step: Callable, device: str) -> float:
    cuda = device.startswith('cuda')
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(case: Case, options: Options) -> list[Row]:
    torch.manual_seed(0)
    x = torch.randn(case.shape, device=options.device)
    if case.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    models = models_of(case, options)
    steps = {name: step_of(model, case, x, options) for name, model in models.items()}
    saved, peak, operations = {}, {}, {}
    for name, step in steps.items():  # also the warm-up
        is_compiled = name.endswith(' compiled')
        if case.mode != 'inference' and not is_compiled:
            saved[name] = saved_bytes(models[name], lambda name=name: models[name](x))
        if not is_compiled:
            operations[name] = count_operations(models[name], step)
        if options.device.startswith('cuda'):
            step()
            torch.cuda.reset_peak_memory_stats()
        step()
        if options.device.startswith('cuda'):
            peak[name] = torch.cuda.max_memory_allocated()
    times = {name: [] for name in models}
    for index in range(options.rounds):
        order = list(steps)
        for name in order[index % len(order) :] + order[: index % len(order)]:
            times[name].append(seconds(steps[name], options.device))
    rows = []
    for name, own in times.items():
        ratios = sorted(t / base for t, base in zip(own, times['plain'], strict=True))
        quarter = len(ratios) // 4
        row = Row(
            str(case), name, statistics.median(ratios), (ratios[quarter], ratios[-1 - quarter])
        )
        row.saved = saved[name] / saved['plain'] if name in saved else None
        row.peak = peak[name] / peak['plain'] if peak else None
        row.operations, row.target = operations.get(name), case.target
        rows.append(row)
    return rows
