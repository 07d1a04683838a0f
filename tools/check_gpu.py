"""Are the Triton kernels right on this GPU, and are they worth it? Within 8 minutes, on one GPU.

Values against the reference operations in float64 (float32, float16, bfloat16; NCHW and
channels_last), a CUDA graph, launches, and times against the plain ResNet-50 and torch.compile of
both. Writes gpu.json, gpu.md and gpu.png. With --device cpu the CPU kernels are checked, on small
inputs, to see that the script runs.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from time import monotonic

import torch
from mmengine.logging import MMLogger

from mmdla.analysis import gpu
from mmdla.analysis.benchmark import Case, Options, compare, models_of
from mmdla.cli.benchmark import plot, show
from mmdla.cli.command_line import positive
from mmdla.cli.command_line import run as run_tool
from mmdla.errors import InputError
from mmdla.files import atomic_write

LARGE = (2, 3, 800, 1344)
HALF = dict(channels_last=True, amp='bfloat16')
# the most important ones first: what does not fit into the time is left out and named
CASES = [
    *(Case('r50', 'DLALight', mode, (64, 3, 224, 224), **HALF) for mode in ('inference', 'train')),
    Case('r50', 'DLALight', 'train-frozen', LARGE, **HALF),
    *(Case('r50', 'DLALight', 'inference', (n, 3, 224, 224), **HALF) for n in (1, 8)),
    Case('r50', 'DLALight', 'inference', LARGE, **HALF),
    *(Case('r50', 'DLABase', mode, (64, 3, 224, 224), **HALF) for mode in ('inference', 'train')),
    *(Case('r50', 'DLALight', mode, (8, 3, 224, 224)) for mode in ('inference', 'train')),
]
COMPILED = 2  # of these cases also with torch.compile, which takes a minute each
SMALL = [Case('r18', kind, mode, (2, 3, 64, 64)) for kind in ('DLALight', 'DLABase')
         for mode in ('inference', 'train')]  # fmt: skip


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--minutes', type=positive, default=8, help='no case begins after 7/8')
    parser.add_argument('--rounds', type=positive, default=15)
    parser.add_argument('--out', type=Path, default=Path('work_dirs', 'gpu'))
    return parser.parse_args(argv)


def describe(device: str) -> dict[str, str]:
    found = dict(torch=torch.__version__, device=device)
    if device.startswith('cuda'):
        import triton

        properties = torch.cuda.get_device_properties(device)
        found |= dict(
            device=properties.name,
            compute_capability=f'{properties.major}.{properties.minor}',
            triton=triton.__version__,
        )
    return found


def check_values(device: str) -> list[gpu.Values]:
    """Compare values in every combination, and say what is wrong."""
    found = []
    dtypes = gpu.DTYPES if device.startswith('cuda') else ('float32', 'bfloat16')
    for combination in product(gpu.KINDS, dtypes, gpu.LAYOUTS, (False, True)):
        values = gpu.check_values(device, *combination)
        found.append(values)
        mark = 'right' if values.is_right else 'WRONG'
        print(f'{mark} {" ".join(map(str, combination)):46} error {values.error:.1e}, of the '
              f'reference operations {values.reference_error:.1e}', flush=True)  # fmt: skip
    return found


def look_at_launches(case: Case, device: str) -> dict[str, dict[str, float]]:
    """Launches of every model for an inference, and the error of a replayed CUDA graph."""
    x = torch.rand(case.shape, device=device).contiguous(memory_format=torch.channels_last)
    found = {}
    for name, model in models_of(case, Options(device)).items():
        launches = gpu.count_launches(model, x, case.amp)
        found[name] = dict(launches=launches, graph_error=gpu.graph_error(model, x, case.amp))
        print(f'{name:18} {launches} launches, graph error {found[name]["graph_error"]:.1e}')
    return found


def markdown(result: dict) -> str:
    lines = ['| case | model | time / plain | saved | peak |', '|---|---|---|---|---|']
    for row in result['rows']:
        low, high = row['quartiles']
        counts = ['' if row[key] is None else f'{row[key]:.2f}' for key in ('saved', 'peak')]
        time_ = f'{row["ratio"]:.2f} ({low:.2f}–{high:.2f})'
        lines.append('| ' + ' | '.join([row['case'], row['model'], time_, *counts]) + ' |')
    wrong = sum(not values['is_right'] for values in result['values'])
    lines += ['', f'Values: {len(result["values"])} combinations, {wrong} wrong.']
    for name, found in result['launches'].items():
        lines.append(f'{name}: {found["launches"]} launches for one image, error of a CUDA graph '
                     f'{found["graph_error"]:.1e}.')  # fmt: skip
    if result['left_out']:
        lines.append('Left out for want of time: ' + '; '.join(result['left_out']) + '.')
    return '\n'.join(lines) + '\n'


def main(argv: Sequence[str] | None = None) -> None:
    start = monotonic()
    args = parse_args(argv)
    MMLogger.get_current_instance().setLevel('WARNING')  # how every weight is initialized
    on_gpu = args.device.startswith('cuda')
    if on_gpu and not torch.cuda.is_available():
        raise InputError('--device cuda: PyTorch finds no GPU here')
    result = dict(**describe(args.device), values=[], launches={}, rows=[], left_out=[])
    print(', '.join(f'{key} {value}' for key, value in result.items() if isinstance(value, str)))
    result['values'] = [asdict(v) | dict(is_right=v.is_right) for v in check_values(args.device)]
    if on_gpu:
        result['launches'] = look_at_launches(CASES[3], args.device)
    rows = []
    for index, case in enumerate(CASES if on_gpu else SMALL):
        if monotonic() - start > 60 * args.minutes * 7 / 8:
            result['left_out'].append(str(case))
            continue
        options = Options(args.device, on_gpu and index < COMPILED, args.rounds)
        of_case = compare(case, options)
        show(of_case)
        rows += of_case
    result['rows'] = [asdict(row) for row in rows]
    args.out.mkdir(parents=True, exist_ok=True)
    for name, text in (('gpu.json', json.dumps(result, indent=1)), ('gpu.md', markdown(result))):
        with atomic_write(args.out / name) as part:
            part.write_text(text)
    plot(rows, args.out / 'gpu.png')
    print(f'{args.out / "gpu.json"}, gpu.md, gpu.png')
    if wrong := [v for v in result['values'] if not v['is_right']]:
        raise InputError(f'{len(wrong)} of {len(result["values"])} combinations have wrong values')


if __name__ == '__main__':
    sys.exit(run_tool(main))
