"""The demo: train a DLA Faster R-CNN on aerial photographs and look at what it finds."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import coco
import drawings
import photos
from wheels import DataError

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / 'configs' / 'demo_tree_dla_r50.py'
DATA = ROOT / 'data' / 'demo'
SMOKE = (
    'epochs=1 train_cfg.max_epochs=1 train_cfg.val_interval=1 train_dataloader.batch_size=1 '
    'train_dataloader.dataset.indices=4 default_hooks.logger.interval=1'
).split()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--attention', choices=('dla', 'none'), default='dla')
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'demo')
    parser.add_argument('--smoke', action='store_true', help='four tiles, one epoch: does it run?')
    return parser.parse_args()


def prepare_data() -> None:
    """Fetch the photographs and convert them, unless that is done."""
    if coco.is_intact(DATA):
        print(f'Using the tiles in {DATA}')
        return
    photos_read = [coco.read(path) for path in photos.unpack(DATA.with_name('photos'))]
    for part, written in coco.convert(photos_read, DATA).items():
        boxes = sum(not a['iscrowd'] for a in written['annotations'])
        print(f'{part:5}: {len(written["images"])} tiles, {boxes} crowns')


def remove_earlier(work_dir: Path) -> None:
    """Remove what an earlier demo, finished or not, left in its folder, and nothing else."""
    for name in ('run', 'test', 'tiles', 'report'):
        shutil.rmtree(work_dir / name, ignore_errors=True)
    for name in ('held_out.png', 'curves.png', 'results.json'):
        (work_dir / name).unlink(missing_ok=True)


def tool(name: str, *args: str) -> None:
    """Run one of the tools, its output shown."""
    command = [sys.executable, str(ROOT / 'tools' / name), str(CONFIG), *args]
    code = subprocess.run(command, cwd=ROOT).returncode
    if code:
        sys.exit(f'tools/{name} ended with exit code {code}, see its messages above')


def main() -> None:
    args = parse_args()
    prepare_data()
    work_dir = args.work_dir.resolve()
    run_dir = work_dir / 'run'
    remove_earlier(work_dir)
    options = [f'randomness.seed={args.seed}']
    if args.attention == 'none':
        options += [
            'model.backbone.layer_attention=None',
            'model.backbone.zero_init_attention=False',
        ]
    if args.smoke:
        options += SMOKE
    start = time.monotonic()
    tool('train.py', '--work-dir', str(run_dir), '--cfg-options', *options)
    minutes = (time.monotonic() - start) / 60

    checkpoint = (run_dir / 'last_checkpoint').read_text().strip()
    predictions = work_dir / 'test' / 'predictions.bbox.json'  # CocoMetric adds the ending
    options.append(f'test_evaluator.outfile_prefix={predictions.parent / "predictions"}')
    tool('test.py', checkpoint, '--work-dir', str(predictions.parent), '--cfg-options', *options)
    (scalars,) = run_dir.glob('*/vis_data/scalars.json')
    sheet = drawings.draw(DATA, predictions, work_dir)[0]
    curve = drawings.curves(scalars, work_dir / 'curves.png')
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    last = [row for row in rows if 'coco/bbox_mAP' in row][-1]
    result = dict(
        attention=args.attention,
        seed=args.seed,
        AP=last['coco/bbox_mAP'],
        AP50=last['coco/bbox_mAP_50'],
        training_minutes=round(minutes, 1),
    )
    part = work_dir / 'results.json.part'
    part.write_text(json.dumps(result, indent=2))
    os.replace(part, work_dir / 'results.json')
    print(f'\nImages: {sheet}, {curve}, {work_dir / "tiles"}')
    print(
        f'Held-out tiles, attention {args.attention}, seed {args.seed}: '
        f'AP {result["AP"]:.3f}, AP50 {result["AP50"]:.3f} ({minutes:.1f} minutes of training)'
    )


if __name__ == '__main__':
    try:
        main()
    except (DataError, coco.AnnotationError) as error:
        sys.exit(f'error: {error}')
