"""Train four models on handwritten digits, three times each, and compare their accuracy.

The same as ``tools/reproduce.py --table digits`` after ``projects/demo/digits.py``.
"""

import argparse
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
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'reproduce')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    digits.prepare(digits.FOLDER)
    command = [sys.executable, str(ROOT / 'tools' / 'reproduce.py'), '--table', 'digits']
    command += ['--rows', *args.models, '--seeds', *map(str, args.seeds)]
    return subprocess.run([*command, '--work-dir', str(args.work_dir.resolve())]).returncode


if __name__ == '__main__':
    try:
        sys.exit(main())
    except DataError as error:
        sys.exit(f'error: {error}')
