"""Check the images that annotation files name: that they are there, whole, and of that size."""

import os
import random
import time
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import cv2
from PIL import Image, UnidentifiedImageError

from mmdla.datasets.findings import Findings

EXIF_ORIENTATION = 0x0112
TURNED = (5, 6, 7, 8)  # orientations that swap width and height
TAIL = 1 << 16  # bytes at the end of a file in which its end marker is looked for
END_MARKERS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
THREADS = 8


def check_images(
    images: Iterable[dict], folder: str, found: Findings, seconds: float | None = None
) -> None:
    """Look at the heads and ends of images.

    Args:
        images (Iterable[dict]): With ``file_name``, ``width`` and ``height``, as in COCO's files.
        folder (str): Where they are.
        found (Findings): Where problems go.
        seconds (float, optional): Look at as many as this time allows, in random order, so that
            the check of a large data set on a slow disk does not delay a training. Default: all.
    """
    images = list(images)
    random.Random(0).shuffle(images)
    end = None if seconds is None else time.monotonic() + seconds
    looked_at = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(images), 256):
            if end is not None and start and time.monotonic() > end:
                break
            part = images[start : start + 256]
            for image, problem in zip(
                part, pool.map(lambda i: _look(i, folder), part), strict=True
            ):
                if problem:
                    found.problem(problem[0], os.path.join(folder, image['file_name']), problem[1])
            looked_at += len(part)
    found.remark('images looked at', looked_at)


def _look(image: dict, folder: str) -> tuple[str, object] | None:
    """Return what is wrong with an image, and a value that shows it."""
    path, size = os.path.join(folder, image['file_name']), (image['width'], image['height'])
    if not os.path.isfile(path):
        return 'images that are not there', None
    try:
        real = _size_of(path)
    except OSError as error:
        return 'images that cannot be read', str(error).replace(repr(path), 'it')
    if real is None:
        return 'files that are no image', f'{os.path.getsize(path)} bytes'
    if real != size:
        return 'images of another size than the annotations say', f'{_by(real)}, not {_by(size)}'
    return ('images that are cut off', None) if _is_cut_off(path) else None


def _size_of(path: str) -> tuple[int, int] | None:
    """Width and height as OpenCV will see them, turned as EXIF says."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with Image.open(path) as image:
                turned = image.getexif().get(EXIF_ORIENTATION) in TURNED
                return image.size[::-1] if turned else image.size
        except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError):
            decoded = cv2.imread(path)  # a format that Pillow does not know, or a very large one
            return None if decoded is None else decoded.shape[1::-1]


def _is_cut_off(path: str) -> bool:
    """Return whether the end of the data is missing: OpenCV makes up the rest, without an error."""
    with open(path, 'rb') as file:
        head = file.read(8)
        file.seek(max(0, os.path.getsize(path) - TAIL))
        tail = file.read()
    kind = 'JPEG' if head.startswith(b'\xff\xd8') else 'PNG' if head[1:4] == b'PNG' else None
    if kind is None or END_MARKERS[kind] in tail:
        return False
    try:
        with Image.open(path) as image:  # something else may follow the marker: decode all of it
            image.load()
    except (OSError, SyntaxError, ValueError):
        return True
    return False


def _by(size: tuple[int, int]) -> str:
    return f'{size[0]}x{size[1]}'
