"""Time and memory of layer attention against the host library's plain ResNet, side by side.

Without options: the cases of docs/performance.md. What is reported is the median over the rounds
of the time divided by that of the plain ResNet in the same round, with quartiles.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from mmengine.logging import MMLogger

from mmdla.analysis.benchmark import MODES, Case, Options, Row, compare, plain_resnet
from mmdla.cli.command_line import positive
from mmdla.files import atomic_write
from mmdla.models.layer_attention import known_types

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
    parser.add_argument('--rounds', type=positive, default=5)
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'benchmark'))
    args = parser.parse_args(argv)
    if not args.attention and (args.network or args.mode or args.shape):
        parser.error('--network, --mode and --shape go with --attention')
    args.network = args.network or ['r50']
    args.mode = args.mode or ['inference', 'train']
    try:
        args.shape = [parse_shape(text) for text in args.shape or ['8x3x224x224']]
        for network in args.network:
            check_network(network)
    except ValueError as error:
        parser.error(str(error))
    return args


def parse_shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split('x'))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1 or shape[1] != 3:
        raise ValueError(f'argument --shape: expected Bx3xHxW, got {text!r}')
    return shape


def check_network(network: str) -> None:
    try:
        plain_resnet(network)
    except ValueError as error:
        raise ValueError(f'argument --network: {error}') from None


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
    shared = Options(args.device, args.amp, args.channels_last, args.compile, args.rounds)
    rows = []
    for case in cases:
        found = compare(case, shared)
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
    with atomic_write(args.out / 'benchmark.json') as part:
        part.write_text(json.dumps(result, indent=1))
    plot(rows, args.out / 'benchmark.png')
    print(f'{args.out / "benchmark.json"}, {args.out / "benchmark.png"}')
