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

EIGHT, LARGE = (8, 3, 224, 224), (1, 3, 800, 1216)
LAST = dict(channels_last=True)
HALF = dict(channels_last=True, amp='bfloat16')
SUITE = [
    Case('r50', 'DLALight', 'inference', EIGHT, target=1.12),
    Case('r50', 'DLALight', 'inference', EIGHT, **LAST, target=1.20),
    Case('r50', 'DLALight', 'inference', EIGHT, **HALF, target=1.30),
    Case('r50', 'DLALight', 'inference', (1, 3, 224, 224), target=1.15),
    Case('r50', 'DLALight', 'inference', (1, 3, 128, 128), target=1.20),
    Case('r50', 'DLALight', 'inference', LARGE, target=1.10),
    Case('r50', 'DLALight', 'train', EIGHT, target=1.30),
    Case('r50', 'DLALight', 'train', EIGHT, **LAST, target=1.40),
    Case('r50', 'DLALight', 'train', EIGHT, **HALF, target=1.50),
    Case('r50', 'DLALight', 'train-frozen', LARGE, target=1.25),
    Case('r50', 'DLABase', 'inference', EIGHT, target=1.20),
    Case('r50', 'DLABase', 'inference', EIGHT, **LAST, target=1.20),
    Case('r50', 'DLABase', 'train', EIGHT, target=1.35),
    Case('r50', 'DLABase', 'train', EIGHT, **LAST, target=1.35),
    Case('cifar110', 'DLABase', 'inference', (32, 3, 32, 32), target=1.30),
    Case('cifar110', 'DLABase', 'train', (32, 3, 32, 32), target=1.40),
    Case('r50', 'MRLALight', 'inference', EIGHT, target=1.10),
    Case('r50', 'MRLALight', 'train', EIGHT, target=1.25),
    Case('r50', 'MRLABase', 'inference', EIGHT),
    Case('r50', 'MRLABase', 'train', EIGHT),
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
    parser.add_argument('--compile', action='store_true', help='torch.compile of all models too')
    parser.add_argument('--rounds', type=positive, default=5)
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'benchmark'))
    args = parser.parse_args(argv)
    if not args.attention and (args.network or args.mode or args.shape):
        parser.error('--network, --mode and --shape go with --attention')
    if not args.attention and (args.amp or args.channels_last):
        parser.error('--amp and --channels-last go with --attention: the cases have their own')
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
        columns += [f'operations {row.operations}'] if row.operations else []
        columns += (
            [f'target {row.target:.2f}'] if row.target and row.model in ('auto', 'fast') else []
        )
        print(f'{row.case:60} {row.model:18} ' + ' '.join(columns), flush=True)


def markdown(rows: list[Row]) -> str:
    """The table of docs/performance.md: a line for every case."""
    lines = [
        '| case | time: reference | time: kernels (quartiles) | time: target | saved: reference | '
        'saved: kernels | operations: plain, reference, kernels |',
        '|---|---|---|---|---|---|---|',
    ]
    for case in dict.fromkeys(row.case for row in rows):
        of_case = {row.model: row for row in rows if row.case == case}
        plain, reference = of_case['plain'], of_case.get('reference')
        ours = next(row for name, row in of_case.items() if name in ('auto', 'fast', 'ours'))
        low, high = ours.quartiles
        counts = [row.operations for row in (plain, reference, ours) if row and row.operations]
        cells = [
            case,
            f'{reference.ratio:.2f}' if reference else '',
            f'{ours.ratio:.2f} ({low:.2f}–{high:.2f})',
            *(f'{row.saved:.2f}' if row and row.saved else '' for row in (reference, ours)),
            ', '.join(map(str, counts)),
        ]
        cells.insert(3, f'{ours.target:.2f}' if ours.target else '')
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


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
    if models:
        axes.legend()
    figure.savefig(path, dpi=120)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cases = SUITE
    if args.attention:
        cases = [
            Case(network, attention, mode, shape, args.channels_last, args.amp)
            for network in args.network
            for attention in args.attention
            for mode in args.mode
            for shape in args.shape
        ]
    MMLogger.get_current_instance().setLevel('WARNING')  # how every weight is initialized
    print(f'PyTorch {torch.__version__}, {args.device}, {torch.get_num_threads()} threads')
    shared = Options(args.device, args.compile, args.rounds)
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
    with atomic_write(args.out / 'benchmark.md') as part:
        part.write_text(markdown(rows))
    plot(rows, args.out / 'benchmark.png')
    print(f'{args.out / "benchmark.json"}, benchmark.md, benchmark.png')
