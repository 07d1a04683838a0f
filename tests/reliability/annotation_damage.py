"""A small COCO data set, and what can be wrong with its annotation file."""

import math
import random
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('cup', 'plate', 'spoon')
WIDTH, HEIGHT = 40, 30
NAN, INF = math.nan, math.inf


def annotations(rng: random.Random) -> dict:
    """Four images with boxes of three classes, two of them crowd regions."""
    images = [dict(id=i, file_name=f'{i}.png', width=WIDTH, height=HEIGHT) for i in range(1, 5)]
    boxes = []
    for n in range(12):
        w, h = rng.randint(3, 15), rng.randint(3, 12)
        x, y = rng.randint(0, WIDTH - w), rng.randint(0, HEIGHT - h)
        polygon = [x, y, x + w, y, x + w, y + h]
        boxes.append(
            dict(id=n + 1, image_id=n % 4 + 1, category_id=10 * rng.randint(1, 3), bbox=[x, y, w, h],
                 area=w * h, iscrowd=int(n > 9), segmentation=[polygon])
        )  # fmt: skip
    categories = [dict(id=10 * (i + 1), name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=boxes, categories=categories)


def write_images(folder: Path) -> None:
    folder.mkdir(parents=True)
    for i in range(1, 5):
        image = np.random.default_rng(i).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f'{i}.png'), image)


def pick(content: dict, kind: str, rng: random.Random) -> dict:
    return rng.choice(content[kind])


NOT_BOXES = [None, 3, 'text', [], [1, 2, 3], [1, 2, 3, 4, 5], {}, [1, 2, 3, None], [1, 2, 3, '4'],
             [NAN, 1, 5, 5], [1, 1, INF, 5], [1, 1, -INF, 5], [1e308, 1, 1e308, 5], [1, 1, 1e12, 5],
             [True, 1, 5, 5], [[1, 1, 5, 5]]]  # fmt: skip
NOT_IDS = [None, 1.5, True, [1], {}, NAN]
NOT_SIZES = [None, 0, -5, '40', 40.5, NAN, INF, [40], True, 1e9]


# Each changes the content in place; these must be refused.
def lose_list(content, rng):
    del content[rng.choice(['images', 'annotations', 'categories'])]


def spoil_list(content, rng):
    content[rng.choice(['images', 'annotations', 'categories'])] = rng.choice([None, {}, 'text', 3])


def lose_key_of_image(content, rng):
    del pick(content, 'images', rng)[rng.choice(['id', 'file_name', 'width', 'height'])]


def lose_key_of_annotation(content, rng):
    keys = ['id', 'image_id', 'category_id', 'bbox', 'area']
    del pick(content, 'annotations', rng)[rng.choice(keys)]


def lose_key_of_category(content, rng):
    del pick(content, 'categories', rng)[rng.choice(['id', 'name'])]


def spoil_entry(content, rng):
    entries = content[rng.choice(['images', 'annotations', 'categories'])]
    entries[rng.randrange(len(entries))] = rng.choice([None, 3, 'text', [], []])


def spoil_box(content, rng):
    pick(content, 'annotations', rng)['bbox'] = rng.choice(NOT_BOXES)


def spoil_area(content, rng):
    pick(content, 'annotations', rng)['area'] = rng.choice([None, 'text', NAN, INF, [3], True])


def spoil_size(content, rng):
    pick(content, 'images', rng)[rng.choice(['width', 'height'])] = rng.choice(NOT_SIZES)


def other_size(content, rng):
    image = pick(content, 'images', rng)
    image['width'], image['height'] = rng.choice([(30, 40), (80, 60), (41, 30)])


def spoil_id(content, rng):
    kind = rng.choice(['images', 'annotations', 'categories'])
    pick(content, kind, rng)['id'] = rng.choice(NOT_IDS)


def spoil_reference(content, rng):
    key = rng.choice(['image_id', 'category_id'])
    pick(content, 'annotations', rng)[key] = rng.choice(NOT_IDS)


def spoil_file_name(content, rng):
    pick(content, 'images', rng)['file_name'] = rng.choice(
        [None, 3, '', 'none.png', '../x.png', []]
    )


def same_id(content, rng):
    kind = rng.choice(['images', 'annotations', 'categories'])
    content[kind][1]['id'] = content[kind][0]['id']


def same_name(content, rng):
    content['categories'].append(dict(id=40, name=rng.choice(CLASSES)))


def unknown_category(content, rng):
    pick(content, 'annotations', rng)['category_id'] = rng.choice([0, 11, 40, '10', 10**20])


def lose_category(content, rng):
    content['categories'].pop(rng.randrange(3))


def other_order(content, rng):
    content['categories'].reverse()


def other_classes(content, rng):
    for category in content['categories']:
        category['name'] = category['name'].upper()


def no_images(content, rng):
    content['images'] = []


def no_boxes(content, rng):
    if rng.random() < 0.5:
        content['annotations'] = []
    for ann in content['annotations']:
        ann.update(bbox=[100, 100, 5, 5])


def strangers_only(content, rng):
    for ann in content['annotations']:
        ann['image_id'] = rng.choice([f'{ann["image_id"]}', ann['image_id'] + 100])


REFUSED = [lose_list, spoil_list, lose_key_of_image, lose_key_of_annotation, lose_key_of_category,
           spoil_entry, spoil_box, spoil_area, spoil_size, other_size, spoil_id, spoil_reference,
           spoil_file_name, same_id, same_name, unknown_category, lose_category, other_order,
           other_classes, no_images, no_boxes, strangers_only]  # fmt: skip


# These MMDetection deals with as it documents.
def zero_area(content, rng):
    ann = pick(content, 'annotations', rng)
    x, y, w, h = ann['bbox']
    ann['bbox'] = rng.choice([[x, y, 0, h], [x, y, w, 0], [x, y, 0, 0], [x, y, 0.5, h], [x, y, -w, h],
                              [x, y, w, -h], [-x, -y, -w, -h]])  # fmt: skip


def outside(content, rng):
    pick(content, 'annotations', rng)['bbox'] = rng.choice(
        [[100, 5, 9, 9], [5, 100, 9, 9], [-50, 5, 9, 9], [5, -50, 9, 9], [40, 30, 5, 5]]
    )


def partly_outside(content, rng):
    pick(content, 'annotations', rng)['bbox'] = rng.choice(
        [[35, 5, 20, 9], [-5, -5, 20, 20], [5, 25, 9, 1000], [-1000, -1000, 5000, 5000]]
    )


def no_area(content, rng):
    pick(content, 'annotations', rng)['area'] = rng.choice([0, -1, -0.5])


def fractions(content, rng):
    ann = pick(content, 'annotations', rng)
    ann.update(bbox=[v + 0.25 for v in ann['bbox']], area=float(ann['area']))


def all_crowd(content, rng):
    pick(content, 'annotations', rng)['iscrowd'] = rng.choice([1, True])


def ignored(content, rng):
    pick(content, 'annotations', rng)['ignore'] = rng.choice([1, True])


def no_crowd_key(content, rng):
    for ann in content['annotations']:
        ann.pop('iscrowd', None)


def image_without_boxes(content, rng):
    image = pick(content, 'images', rng)['id']
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != image]


def stranger(content, rng):
    content['annotations'].append(content['annotations'][0] | dict(id=99, image_id=99))


def more_classes(content, rng):
    content['categories'].insert(rng.randrange(4), dict(id=5, name='fork'))
    content['annotations'].append(content['annotations'][0] | dict(id=99, category_id=5))


def other_ids(content, rng):
    text = rng.random() < 0.5
    for image in content['images']:
        image['id'] = f'nr {image["id"]}' if text else -image['id']
    for ann in content['annotations']:
        ann['image_id'] = f'nr {ann["image_id"]}' if text else -ann['image_id']


def more_keys(content, rng):
    content.update(info={}, licenses=[])
    pick(content, 'images', rng)['coco_url'] = None


def as_is(content, rng):
    rng.shuffle(content['annotations'])


BOXES = [zero_area, outside, partly_outside, no_area, fractions, all_crowd, ignored]
TOLERATED = [*BOXES, no_crowd_key,
             image_without_boxes, stranger, more_classes, other_ids, more_keys, as_is]  # fmt: skip
