"""Time and memory of layer attention against the host library's plain ResNet, side by side.

Without options: the cases of docs/performance.md. Every round runs all models of a case once, in
turn; what is reported is the median over the rounds of the time divided by that of the plain
ResNet in the same round, with quartiles.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from mmdet.models.backbones import ResNet
from mmengine.logging import MMLogger
from torch import Tensor, nn

from mmdla import DLAResNet, DLAResNet_CIFAR
from mmdla.analysis.memory import saved_bytes
from mmdla.models.layer_attention import known_types

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
    """

    network: str
    attention: str
    mode: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f'{self.network} {self.attention} {self.mode} {"x".join(map(str, self.shape))}'


SUITE = [
    Case('r50', 'DLALight', 'inference', (8, 3, 224, 224)),
    Case('r50', 'DLALight', 'inference', (1, 3, 800, 1216)),
    Case('r50', 'DLALight', 'train', (8, 3, 224, 224)),
    Case('r50', 'DLALight', 'train-frozen', (1, 3, 800, 1216)),
    Case('r50', 'MRLALight', 'inference', (8, 3, 224, 224)),
    Case('r50', 'MRLALight', 'train', (8, 3, 224, 224)),
    Case('r50', 'DLABase', 'inference', (8, 3, 224, 224)),
    Case('r50', 'DLABase', 'train', (8, 3, 224, 224)),
    Case('r50', 'MRLABase', 'train', (8, 3, 224, 224)),
    *(Case(f'cifar{depth}', 'DLABase', 'inference', (32, 3, 32, 32)) for depth in (20, 56, 110)),
    *(Case(f'cifar{depth}', 'DLABase', 'train', (32, 3, 32, 32)) for depth in (20, 56, 110)),
    *(Case('r50', 'DLALight', 'inference', (1, 3, size, size)) for size in (128, 256, 512)),
]


@dataclass
class Row:
    """Result of one model in one case: times and bytes over those of the plain ResNet."""

    case: str
    model: str
    ratio: float
    quartiles: tuple[float, float]
    saved: float | None = None
    peak: float | None = None


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--network', nargs='+', metavar='r50|cifar110')
    parser.add_argument('--attention', nargs='+', choices=known_types())
    parser.add_argument('--mode', nargs='+', choices=MODES)
    parser.add_argument('--shape', nargs='+', metavar='Bx3xHxW')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--amp', choices=('float16', 'bfloat16'), help='autocast to this dtype')
    parser.add_argument('--channels-last', action='store_true')
    parser.add_argument('--compile', action='store_true', help='torch.compile all the models')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'benchmark'))
    args = parser.parse_args(argv)
    if not args.attention and (args.network or args.mode or args.shape):
        parser.error('--network, --mode and --shape go with --attention')
    args.network = args.network or ['r50']
    args.mode = args.mode or ['inference', 'train']
    try:
        args.shape = [parse_shape(text) for text in args.shape or ['8x3x224x224']]
        for network in args.network:
            plain_resnet(network)
    except ValueError as error:
        parser.error(str(error))
    if args.rounds < 1:
        parser.error(f'argument --rounds: must be positive, got {args.rounds}')
    return args


def parse_shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split('x'))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1 or shape[1] != 3:
        raise ValueError(f'argument --shape: expected Bx3xHxW, got {text!r}')
    return shape


def plain_resnet(network: str, norm_eval: bool = False) -> nn.Module:
    """The host library's ResNet, for CIFAR (where it has none) our own without attention."""
    kind, depth = network.rstrip('0123456789'), network.lstrip('abcdefghijklmnopqrstuvwxyz')
    if kind not in ('r', 'cifar') or not depth:
        raise ValueError(f"argument --network: expected 'r50' or 'cifar110', got {network!r}")
    with torch.device('meta'):
        if kind == 'cifar':
            return DLAResNet_CIFAR(int(depth), norm_eval=norm_eval)
        try:
            return ResNet(int(depth), norm_eval=norm_eval)
        except KeyError:
            raise ValueError(f'argument --network: no ResNet-{depth}') from None


def models_of(case: Case, args: argparse.Namespace) -> dict[str, nn.Module]:
    """Plain, ours with the reference operations, ours with what is chosen by itself."""
    norm_eval = case.mode == 'train-frozen'
    attention = dict(type=case.attention)
    kind, depth = (DLAResNet_CIFAR, 5) if case.network.startswith('cifar') else (DLAResNet, 1)
    if kind is DLAResNet_CIFAR and case.attention.startswith('DLA'):
        attention['reduction'] = CIFAR_REDUCTION
    depth = int(case.network[depth:])
    models = dict(plain=plain_resnet(case.network, norm_eval).to_empty(device=args.device))
    has_paths = case.attention in ('DLALight', 'DLABase', 'MRLALight', 'MRLABase')
    for ops in ('reference', 'auto') if has_paths else (None,):
        cfg = attention if ops is None else dict(attention, ops=ops)
        models[ops or 'ours'] = kind(depth, layer_attention=cfg, norm_eval=norm_eval)
    for name, model in models.items():
        torch.manual_seed(0)
        model.to(args.device).init_weights()
        for module in model.modules():  # as after some training, and safe from overflow
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
                nn.init.constant_(module.weight, 0.2)
                nn.init.zeros_(module.bias)
        model.train(case.mode != 'inference')
        if args.channels_last:
            model.to(memory_format=torch.channels_last)
        models[name] = torch.compile(model) if args.compile else model
    return models


def step_of(model: nn.Module, case: Case, x: Tensor, args: argparse.Namespace) -> Callable:
    """One inference or training step (without optimizer) as a function."""
    amp = nullcontext
    if args.amp:
        dtype = getattr(torch, args.amp)

        def amp():
            return torch.autocast(torch.device(args.device).type, dtype=dtype)

    def infer() -> None:
        with torch.no_grad(), amp():
            model(x)

    def train() -> None:
        with amp():
            loss = sum(out.float().mean() for out in model(x))
        loss.backward()
        model.zero_grad()

    return infer if case.mode == 'inference' else train


def seconds(step: Callable, device: str) -> float:
    cuda = device.startswith('cuda')
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def run(case: Case, args: argparse.Namespace) -> list[Row]:
    torch.manual_seed(0)
    x = torch.randn(case.shape, device=args.device)
    if args.channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    models = models_of(case, args)
    steps = {name: step_of(model, case, x, args) for name, model in models.items()}
    saved, peak = {}, {}
    for name, step in steps.items():  # also the warm-up
        if case.mode != 'inference' and not args.compile:
            saved[name] = saved_bytes(models[name], lambda name=name: models[name](x))
        if args.device.startswith('cuda'):
            step()
            torch.cuda.reset_peak_memory_stats()
        step()
        if args.device.startswith('cuda'):
            peak[name] = torch.cuda.max_memory_allocated()
    times = {name: [] for name in models}
    for index in range(args.rounds):
        order = list(steps)
        for name in order[index % len(order) :] + order[: index % len(order)]:
            times[name].append(seconds(steps[name], args.device))
    rows = []
    for name, own in times.items():
        ratios = sorted(t / base for t, base in zip(own, times['plain'], strict=True))
        quarter = len(ratios) // 4
        row = Row(
            str(case), name, statistics.median(ratios), (ratios[quarter], ratios[-1 - quarter])
        )
        row.saved = saved[name] / saved['plain'] if saved else None
        row.peak = peak[name] / peak['plain'] if peak else None
        rows.append(row)
    return rows


def show(rows: list[Row]) -> None:
    for row in rows:
        columns = [f'{row.ratio:5.2f}', f'({row.quartiles[0]:.2f}-{row.quartiles[1]:.2f})']
        columns += [f'saved {row.saved:.2f}'] if row.saved else []
        columns += [f'peak {row.peak:.2f}'] if row.peak else []
        print(f'{row.case:48} {row.model:10} ' + ' '.join(columns), flush=True)


def plot(rows: list[Row], path: Path) -> None:
    import matplotlib

    matplotlib.use('Agg')
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(row.case for row in rows))
    figure, axes = plt.subplots(figsize=(9, 0.5 * len(cases) + 1.5), layout='constrained')
    models = [name for name in dict.fromkeys(row.model for row in rows) if name != 'plain']
    height = 0.8 / max(1, len(models))
    for i, name in enumerate(models):
        own = [row for row in rows if row.model == name]
        places = [cases.index(row.case) + i * height for row in own]
        spread = [[row.ratio - row.quartiles[0] for row in own]]
        spread += [[row.quartiles[1] - row.ratio for row in own]]
        axes.barh(places, [row.ratio for row in own], height, xerr=spread, label=name)
    axes.axvline(1.0, color='black', linewidth=1)
    axes.set_yticks([i + 0.4 - height / 2 for i in range(len(cases))], cases, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel('time over that of the plain ResNet (median, quartiles)')
    axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cases = SUITE
    if args.attention:
        cases = [
            Case(network, attention, mode, shape)
            for network in args.network
            for attention in args.attention
            for mode in args.mode
            for shape in args.shape
        ]
    MMLogger.get_current_instance().setLevel('WARNING')  # how every weight is initialized
    print(f'PyTorch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads')
    rows = []
    for case in cases:
        found = run(case, args)
        show(found)
        rows += found
    args.out.mkdir(parents=True, exist_ok=True)
    options = {k: str(v) for k, v in vars(args).items()}
    result = dict(
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        options=options,
        rows=[asdict(row) for row in rows],
    )
    part = args.out / 'benchmark.json.part'
    part.write_text(json.dumps(result, indent=1))
    os.replace(part, args.out / 'benchmark.json')
    plot(rows, args.out / 'benchmark.png')
    print(f'{args.out / "benchmark.json"}, {args.out / "benchmark.png"}')


if __name__ == '__main__':
    main()
