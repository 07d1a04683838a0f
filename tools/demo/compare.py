"""Train four models on handwritten digits, three times each, and compare their accuracy."""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import digits
from wheels import DataError

ROOT = Path(__file__).resolve().parents[2]
MODELS = ('plain', 'mrla_l', 'dla_l', 'dla_b')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--models', nargs='+', choices=MODELS, default=MODELS)
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'digits')
    return parser.parse_args()


def accuracy(model: str, seed: int, folder: Path) -> float:
    """Top-1 accuracy (per cent) on the held-out digits; a run that is done is not repeated."""
    result = folder / 'result.json'
    if result.exists():
        return json.loads(result.read_text())
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, str(ROOT / 'tools' / 'train.py')]
    command += [str(ROOT / 'configs' / f'demo_digits_{model}.py'), '--work-dir', str(folder)]
    command += ['--cfg-options', f'randomness.seed={seed}']
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(f'tools/train.py ended with exit code {code}, see its messages above')
    (scalars,) = folder.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    value = [row['accuracy/top1'] for row in rows if 'accuracy/top1' in row][-1]
    part = folder / 'result.json.part'
    part.write_text(json.dumps(value))
    os.replace(part, result)
    return value


def main() -> None:
    args = parse_args()
    digits.prepare(ROOT / 'data' / 'digits')
    lines = ['| model | top-1 accuracy, % | seeds |', '|---|---|---|']
    for model in args.models:
        values = [
            accuracy(model, seed, args.work_dir.resolve() / model / f'seed{seed}')
            for seed in args.seeds
        ]
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        seeds = ', '.join(map(str, args.seeds))
        lines.append(f'| {model} | {statistics.mean(values):.2f} ± {spread:.2f} | {seeds} |')
        print('\n'.join(lines), flush=True)


if __name__ == '__main__':
    try:
        main()
    except DataError as error:
        sys.exit(f'error: {error}')
