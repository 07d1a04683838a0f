"""Check COCO annotation files before training, all of their entries.

What MMDetection leaves out or cuts as it documents (crowd regions, boxes without an area or outside
of the image, classes that the config does not have) is counted. What would end a training in the
middle, or would silently give it other data than the file means, is an error.
"""

import gc
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from mmdla.datasets.findings import Findings
from mmdla.errors import InputError

LARGEST = 1e7  # pixels; more is no coordinate of an image
OF_IMAGE = {'id', 'file_name', 'height', 'width'}
OF_ANNOTATION = {'id', 'image_id', 'category_id', 'bbox', 'area'}


class Use(NamedTuple):
    """Use that a config makes of an annotation file.

    Attributes:
        path (str): The file.
        folder (str, optional): Folder of its images.
        classes (tuple[str], optional): Classes of the config; None if they are not known.
        trains (bool): Whether boxes must be in it.
        masks (bool): Whether the boxes need segmentations.
    """

    path: str
    folder: str | None = None
    classes: tuple[str, ...] | None = None
    trains: bool = False
    masks: bool = False


def read_json(path: str) -> Any:
    """Content of a JSON file.

    Raises:
        InputError: It cannot be read; says where it is broken.
    """
    try:
        with open(path, encoding='utf-8') as file, _no_garbage_collection():
            return json.load(file)
    except json.JSONDecodeError as error:
        where = f'{error.msg} in line {error.lineno}, column {error.colno}'
        size = f'{os.path.getsize(path)} bytes'
        message = f'{path}: no valid JSON, {where} ({size}; is it complete?)'
    except UnicodeDecodeError as error:
        message = f'{path}: no valid JSON, {error.reason} at byte {error.start}'
    except RecursionError:
        message = f'{path}: no annotations, its JSON is nested too deeply'
    except OSError as error:
        message = f'{path}: cannot be read ({error.strerror})'
    raise InputError(message)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause the collector, which would look through millions of annotations again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def check_content(content: Any, use: Use) -> Findings:
    """Look at every entry of an annotation file.

    Args:
        content (Any): What :func:`read_json` gave.
        use (Use): What it is for.
    """
    found = Findings(use.path)
    if not isinstance(content, dict):
        found.problem('no COCO annotations', 'the file', type(content).__name__)
        return found
    lists = ['images', 'categories'] + ['annotations'] * (use.trains or 'annotations' in content)
    for key in lists:
        if not isinstance(content.get(key), list):
            found.problem('lists missing', f'{key!r}', content.get(key, 'nothing'))
    if found.counts:
        return found
    sizes = _check_images(content['images'], found)
    categories = _check_categories(content['categories'], use.classes, found)
    with _no_garbage_collection():
        _check_annotations(content.get('annotations', []), sizes, categories, use, found)
    return found


def _check_images(images: list, found: Findings) -> dict:
    """Width and height by id."""
    sizes: dict = {}
    if not images:
        found.problem('no images', "'images'", [])
    for image in _entries(images, 'image', OF_IMAGE, found):
        key = image['id']
        where = f'image {key!r}'
        if type(key) not in (int, str):
            found.problem('ids of images that are neither integers nor strings', where)
            continue
        if key in sizes:
            found.problem('images with the id of another image', where)
        if not (isinstance(image['file_name'], str) and image['file_name']):
            found.problem('images without a file name', where, image['file_name'])
        size = image['width'], image['height']
        if not all(_is_number(v) and v >= 1 and v == int(v) for v in size):
            found.problem('images whose width and height are no sizes', where, size)
            size = None
        sizes[key] = size
    found.remark('images', len(sizes))
    return sizes


def _check_categories(categories: list, classes: tuple | None, found: Findings) -> dict:
    """Return whether the config has the class, by id of the category."""
    names: dict = {}
    for category in _entries(categories, 'category', {'id', 'name'}, found):
        key, name = category['id'], category['name']
        where = f'category {key!r}'
        if type(key) not in (int, str) or not isinstance(name, str):
            found.problem('categories without an id and a name', where, name)
        elif key in names:
            found.problem('categories with the id of another one', where, name)
        elif name in names.values():
            found.problem('categories with the name of another one', where, name)
        else:
            names[key] = name
    if classes is None or not names:
        if not names:
            found.problem('no categories', "'categories'", categories[:3])
        return dict.fromkeys(names, True)
    known, wanted = [n for n in names.values() if n in classes], list(classes)
    if missing := [name for name in wanted if name not in known]:
        # MMDetection numbers the classes that are there, under the names of the config
        hint = f'{missing[0]!r} (the file has {_some(names.values())})'
        found.problem('classes of the config (metainfo) that the file does not have', hint)
        for name in missing[1:]:
            found.problem(
                'classes of the config (metainfo) that the file does not have', f'{name!r}'
            )
    elif known != wanted:
        first = next(
            i for i, pair in enumerate(zip(known, wanted, strict=True)) if len({*pair}) > 1
        )
        found.problem(
            'classes in another order than in the config (metainfo), whose names would be mixed up',
            f'number {first} is {known[first]!r} in the file and {wanted[first]!r} in the config',
        )
    return {key: name in classes for key, name in names.items()}


def _check_annotations(
    annotations: list, sizes: dict, categories: dict, use: Use, found: Findings
) -> None:
    ids: set = set()
    with_boxes: set = set()
    strays = 0
    for ann in _entries(annotations, 'annotation', OF_ANNOTATION, found):
        where = f'annotation {ann["id"]!r}'
        key, image, category = ann['id'], ann['image_id'], ann['category_id']
        if not {type(key), type(image), type(category)} <= {int, str}:
            found.problem('ids that are neither integers nor strings', where, (image, category))
            continue
        if key in ids:
            found.problem('annotations with the id of another one', where)
        ids.add(key)
        if category not in categories:
            found.problem('annotations of unknown categories', where, category)
            continue
        box, area = ann['bbox'], ann['area']
        if not (isinstance(box, list) and len(box) == 4 and _are_numbers(box)):
            found.problem('boxes that are no list of 4 numbers [x, y, width, height]', where, box)
            continue
        if not _is_number(area, LARGEST**2):
            found.problem('areas that are no numbers', where, area)
            continue
        if image not in sizes:
            strays += 1
        elif (size := sizes[image]) is not None and (
            _is_kept(box, area, size, ann, found) and _is_of_a_class(categories[category], found)
        ):
            with_boxes.add(image)
            if use.masks:
                _check_segmentation(ann.get('segmentation'), where, size, found)
    found.remark('annotations', len(ids))
    found.remark('of images that are not listed', strays)
    found.remark('images without a box', len(sizes) - len(with_boxes))
    if use.trains and sizes and not with_boxes and not found.counts:
        found.problem('no box is left', 'what was found', found.summary().partition(': ')[2])


def _is_kept(box: list, area: float, size: tuple, ann: dict, found: Findings) -> bool:
    """As ``CocoDataset.parse_data_info`` decides."""
    x, y, w, h = box
    width, height = size
    if ann.get('ignore', False):
        found.remark('marked "ignore", left out')
        return False
    if w < 1 or h < 1 or area <= 0:
        found.remark('without an area or thinner than a pixel, left out')
        return False
    if min(x + w, width) <= max(x, 0) or min(y + h, height) <= max(y, 0):
        found.remark('outside of their image, left out')
        return False
    if ann.get('iscrowd', False):
        found.remark('crowd regions, ignored')
    if x < 0 or y < 0 or x + w > width + 1 or y + h > height + 1:
        found.remark('boxes that reach out of their image')
    return True


def _is_of_a_class(is_known: bool, found: Findings) -> bool:
    if not is_known:
        found.remark('of classes that the config does not have, left out')
    return is_known


def _check_segmentation(value: Any, where: str, size: tuple, found: Findings) -> None:
    """Polygons or run lengths; ``LoadAnnotations`` ignores boxes whose polygons are too short."""
    if not value:
        found.problem('boxes without the segmentation that with_mask=True needs', where)
    elif isinstance(value, list):
        if not all(isinstance(polygon, list) and _are_numbers(polygon) for polygon in value):
            found.problem(
                'segmentations that are no polygons [[x, y, x, y, ...], ...]', where, value
            )
        elif not any(len(polygon) % 2 == 0 and len(polygon) >= 6 for polygon in value):
            found.remark('with polygons of less than three points, ignored')
    elif not (isinstance(value, dict) and _is_run_length(value, size)):
        found.problem('segmentations that are no run lengths of their image', where, value)


def _is_run_length(value: dict, size: tuple) -> bool:
    counts, (width, height) = value.get('counts'), size
    if value.get('size') != [height, width]:
        return False
    if isinstance(counts, str):
        return bool(counts) and counts.isascii()
    return (
        isinstance(counts, list)
        and all(type(n) is int and n >= 0 for n in counts)
        and sum(counts) == width * height
    )


def _entries(entries: list, what: str, keys: set[str], found: Findings) -> Iterator[dict]:
    """Entries that are dicts with the keys."""
    for i, entry in enumerate(entries):
        if not isinstance(entry, dict):
            found.problem(f'entries that are no {what}', f'number {i}', entry)
        elif not keys <= entry.keys():
            missing = ', '.join(sorted(keys - entry.keys()))
            found.problem(f'{what} entries without {missing}', f'number {i}', entry)
        else:
            yield entry


def _is_number(value: Any, largest: float = LARGEST) -> bool:
    return type(value) in (int, float) and -largest <= value <= largest  # not NaN


def _are_numbers(values: list) -> bool:
    if not values:
        return True
    if not set(map(type, values)) <= {int, float} or sum(values) != sum(values):  # NaN
        return False
    return -LARGEST <= min(values) and max(values) <= LARGEST


def _some(names) -> str:
    names = list(names)
    return ', '.join(map(repr, names[:4])) + ', ...' * (len(names) > 4)
