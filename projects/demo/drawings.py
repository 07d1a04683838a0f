"""Images of a finished run: what it finds beside what is there, and how it learned."""

import json
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
from matplotlib.patches import Rectangle

SCORE = 0.5  # predictions below are not drawn
SHEET = 6  # tiles on the contact sheet
TRUTH, IGNORED, PREDICTED = '#39d353', '#9a9a9a', '#ffb000'


def draw(data: Path, predictions: Path, folder: Path) -> list[Path]:
    """Draw every held-out tile, and a contact sheet of those with the most boxes.

    Args:
        data (Path): The converted data set.
        predictions (Path): Boxes in COCO's result format, as ``CocoMetric`` writes them.
        folder (Path): Where the images go.

    Returns:
        list[Path]: The contact sheet, then the single images.
    """
    coco = json.loads((data / 'annotations' / 'val.json').read_text())
    found: dict[int, list[dict]] = {image['id']: [] for image in coco['images']}
    for box in json.loads(predictions.read_text()):
        found[box['image_id']].append(box)
    truth: dict[int, list[dict]] = {image['id']: [] for image in coco['images']}
    for annotation in coco['annotations']:
        truth[annotation['image_id']].append(annotation)
    by_crowns = sorted(coco['images'], key=lambda image: -len(truth[image['id']]))

    tiles = folder / 'tiles'
    tiles.mkdir(parents=True, exist_ok=True)
    paths = [_sheet(by_crowns[:SHEET], truth, found, data, folder / 'held_out.png')]
    for image in coco['images']:
        paths.append(_sheet([image], truth, found, data, tiles / image['file_name']))
    return paths


def _sheet(images, truth, found, data, path: Path) -> Path:
    """Pairs of panels, two pairs a row: the marked boxes, the predicted ones."""
    rows = (len(images) + 1) // 2
    columns = 4 if len(images) > 1 else 2
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.2 * columns, 3.5 * rows), squeeze=False, layout='constrained'
    )
    panels = list(axes.flat)
    for image in images:
        photo = plt.imread(data / 'val' / image['file_name'])
        marked, predicted = panels.pop(0), panels.pop(0)
        boxes = truth[image['id']]
        for annotation in boxes:
            color = IGNORED if annotation['iscrowd'] else TRUTH
            _box(marked, *annotation['bbox'], color)
        kept = [box for box in found[image['id']] if box['score'] >= SCORE]
        for box in kept:
            _box(predicted, *box['bbox'], PREDICTED)
        marked.set_title(f'marked by hand: {sum(not a["iscrowd"] for a in boxes)}', fontsize=10)
        predicted.set_title(f'found (score ≥ {SCORE}): {len(kept)}', fontsize=10)
        for panel in (marked, predicted):
            panel.imshow(photo)
            panel.axis('off')
    for panel in panels:
        panel.axis('off')
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


def _box(panel, x, y, width, height, color) -> None:
    panel.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=1.3))


def curves(scalars: Path, path: Path) -> Path:
    """Loss over the iterations, and AP on the held-out tiles over the epochs.

    Args:
        scalars (Path): The ``scalars.json`` that MMEngine's visualizer wrote.
        path (Path): The image.
    """
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    losses = [(row['step'], row['loss']) for row in rows if 'loss' in row]
    scores = [
        (row['step'], row['coco/bbox_mAP'], row['coco/bbox_mAP_50'])
        for row in rows
        if 'coco/bbox_mAP' in row
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout='constrained')
    left.plot(*zip(*losses, strict=True), color='#4878d0')
    left.set(title='training loss', xlabel='iteration', ylabel='loss')
    epochs, ap, ap50 = zip(*scores, strict=True)
    right.plot(epochs, ap50, 'o-', color='#ee854a', label='AP50')
    right.plot(epochs, ap, 's-', color='#4878d0', label='AP')
    right.set(title='held-out tiles', xlabel='epoch', ylabel='COCO average precision', ylim=(0, 1))
    right.legend()
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
