"""Show what the layer attention of the demo's model does: a page for the browser.

Trains the demo first, unless that is done.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import coco
from photos import NAMES
from run import CONFIG, DATA, ROOT, prepare_data
from wheels import DataError

TILES = 3  # of every photograph, those with the most crowns


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'demo')
    return parser.parse_args()


def is_trained(work_dir: Path) -> bool:
    """Return whether a demo with layer attention has been trained there to its end."""
    results, last = work_dir / 'results.json', work_dir / 'run' / 'last_checkpoint'
    if not (results.is_file() and last.is_file() and Path(last.read_text().strip()).is_file()):
        return False
    return json.loads(results.read_text())['attention'] != 'none'


def crowded_tiles(data: Path, photographs=NAMES) -> list[Path]:
    """Return the held-out tiles with the most crowns, from every photograph."""
    held_out = json.loads((data / 'annotations' / 'val.json').read_text())
    of_image = [annotation['image_id'] for annotation in held_out['annotations']]
    images = sorted(held_out['images'], key=lambda image: -of_image.count(image['id']))
    names = [image['file_name'] for image in images]
    return [
        data / 'val' / name
        for photograph in photographs
        for name in [name for name in names if name.startswith(photograph)][:TILES]
    ]


def main() -> int:
    work_dir = parse_args().work_dir.resolve()
    if not is_trained(work_dir):
        run = [sys.executable, Path(__file__).with_name('run.py'), '--work-dir', work_dir]
        if code := subprocess.run(run).returncode:
            return code
    prepare_data()
    checkpoint = (work_dir / 'run' / 'last_checkpoint').read_text().strip()
    command = [sys.executable, ROOT / 'tools' / 'look_inside.py', CONFIG, checkpoint]
    command += [*crowded_tiles(DATA), '--out', work_dir / 'report']
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == '__main__':
    try:
        sys.exit(main())
    except (DataError, coco.AnnotationError) as error:
        sys.exit(f'error: {error}')
