"""Cut photographs into tiles, their Pascal VOC boxes into a COCO data set.

The left part of every photograph is for training, the right part is held out, and no tile
reaches over the border between them.
"""

import json
import os
import shutil
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

TILE = 256  # pixels
TRAIN_PART = 0.7  # of a photograph's width
TRAIN_STEP = 128  # training tiles overlap, held-out ones do not
KEEP = 0.5  # a box cut by a tile's edge counts if this part of its area is left ...
IGNORE = 0.1  # ... and is neither right nor wrong (COCO's crowd) if this part is
CATEGORIES = [dict(id=1, name='Tree')]
MANIFEST = 'manifest.json'
RULES = [TILE, TRAIN_PART, TRAIN_STEP, KEEP, IGNORE]


@dataclass(frozen=True)
class Photo:
    """A photograph and its boxes, shape (N, 4): x1, y1, x2, y2 in pixels."""

    name: str
    image: np.ndarray
    boxes: np.ndarray


class AnnotationError(ValueError):
    """An annotation file or photograph is damaged."""


def read(path: Path) -> Photo:
    """Read a photograph and the XML file beside it.

    Raises:
        AnnotationError: One of them cannot be read, or a box lies outside of the photograph.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise AnnotationError(f'{path}: cannot be read as an image')
    xml = path.with_suffix('.xml')
    try:
        root = ET.parse(xml).getroot()
        boxes = [
            [float(box.findtext(key)) for key in ('xmin', 'ymin', 'xmax', 'ymax')]
            for box in root.iter('bndbox')
        ]
    except (OSError, ET.ParseError, TypeError, ValueError) as error:
        raise AnnotationError(f'{xml}: cannot be read as Pascal VOC ({error})') from error
    if not boxes:
        raise AnnotationError(f'{xml}: no boxes in it')
    array = np.array(boxes)
    height, width = image.shape[:2]
    outside = (array[:, :2] < 0).any(1) | (array[:, 2] > width) | (array[:, 3] > height)
    if (outside | (array[:, 2:] <= array[:, :2]).any(1)).any():
        raise AnnotationError(f'{xml}: a box that is empty or outside of {width}x{height} pixels')
    return Photo(path.stem, image, array)


def corners(photo: Photo, part: str) -> list[tuple[int, int]]:
    """Upper left corners (x, y) of the tiles of ``part``, ``'train'`` or ``'val'``."""
    height, width = photo.image.shape[:2]
    border = int(width * TRAIN_PART)
    left, right, step = (0, border, TRAIN_STEP) if part == 'train' else (border, width, TILE)
    return [
        (x, y)
        for y in range(0, height - TILE + 1, step)
        for x in range(left, right - TILE + 1, step)
    ]


def tile_boxes(photo: Photo, x: int, y: int) -> list[dict]:
    """COCO annotations (without ids) of the boxes in a tile."""
    annotations = []
    for x1, y1, x2, y2 in photo.boxes - np.array([x, y, x, y]):
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, TILE), min(y2, TILE)
        if right <= left or bottom <= top:
            continue
        area = (right - left) * (bottom - top)
        visible = area / ((x2 - x1) * (y2 - y1))
        if visible >= IGNORE:
            box = [float(v) for v in (left, top, right - left, bottom - top)]
            crowd = int(visible < KEEP)
            annotations.append(dict(bbox=box, area=float(area), category_id=1, iscrowd=crowd))
    return annotations


def convert(photos: list[Photo], folder: Path) -> dict[str, dict]:
    """Write ``folder/{train,val}`` with tiles and ``folder/annotations/{train,val}.json``.

    The folder appears when it is complete. Training tiles without a box are left out.

    Returns:
        dict: The two COCO dictionaries by part.
    """
    part_folder = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(part_folder, ignore_errors=True)
    (part_folder / 'annotations').mkdir(parents=True)
    written = {}
    for part in ('train', 'val'):
        (part_folder / part).mkdir()
        coco = dict(images=[], annotations=[], categories=CATEGORIES)
        for photo in photos:
            for x, y in corners(photo, part):
                found = tile_boxes(photo, x, y)
                if part == 'train' and not any(not a['iscrowd'] for a in found):
                    continue
                name = f'{photo.name}_{x}_{y}.png'
                cv2.imwrite(str(part_folder / part / name), photo.image[y : y + TILE, x : x + TILE])
                image_id = len(coco['images']) + 1
                coco['images'].append(dict(id=image_id, file_name=name, width=TILE, height=TILE))
                for annotation in found:
                    number = len(coco['annotations']) + 1
                    coco['annotations'].append(dict(id=number, image_id=image_id, **annotation))
        (part_folder / 'annotations' / f'{part}.json').write_text(json.dumps(coco))
        written[part] = coco
    check(photos, written)
    write_manifest(part_folder)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part_folder, folder)
    return written


def check(photos: list[Photo], written: dict[str, dict]) -> None:
    """Check what was converted against the photographs.

    Raises:
        AnnotationError: A part is empty, a box leaves its tile, or the parts share a pixel.
    """
    covered = {photo.name: dict.fromkeys(('train', 'val')) for photo in photos}
    for part, coco in written.items():
        if not coco['images'] or not coco['annotations']:
            raise AnnotationError(f'{part}: no tiles or no boxes')
        for annotation in coco['annotations']:
            x, y, width, height = annotation['bbox']
            if min(x, y) < 0 or min(width, height) <= 0 or max(x + width, y + height) > TILE:
                raise AnnotationError(f'{part}: box {annotation["bbox"]} leaves its tile')
        for photo in photos:
            mask = np.zeros(photo.image.shape[:2], bool)
            for x, y in corners(photo, part):
                mask[y : y + TILE, x : x + TILE] = True
            covered[photo.name][part] = mask
    for name, masks in covered.items():
        if (masks['train'] & masks['val']).any():
            raise AnnotationError(f'{name}: training and held-out tiles share pixels')


def is_intact(folder: Path) -> bool:
    """Return whether a data set converted by these rules is there, with all of its files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        sizes = {name: (folder / name).stat().st_size for name in manifest['files']}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return manifest == dict(rules=RULES, files=sizes)


def write_manifest(folder: Path) -> None:
    """Note the rules of the conversion, and all files with their sizes."""
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    sizes = {str(path.relative_to(folder)): path.stat().st_size for path in files}
    (folder / MANIFEST).write_text(json.dumps(dict(rules=RULES, files=sizes)))
