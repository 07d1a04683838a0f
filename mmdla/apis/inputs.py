"""Images and videos that a command line names."""

import io
import mimetypes
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from mmdla.errors import InputError

IMAGE_SUFFIXES = {
    '.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp',
}  # fmt: skip
VIDEOS = {'.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'}
# beside those that Python knows everywhere
OTHER_MEDIA = {'.3gp', '.avif', '.dng', '.flv', '.heic', '.heif', '.jp2', '.mts', '.tga'}
GRAPHICS = IMAGE_SUFFIXES - {'.gif', '.pgm', '.ppm'}  # formats that images are also written in
SUFFIXES = f'{", ".join(sorted(IMAGE_SUFFIXES))} (of a GIF its first frame)'
VIDEO_SUFFIXES = ', '.join(sorted(VIDEOS))


class UnreadableError(Exception):
    """A file that is no image or video, is damaged, or of a size that the pipeline cannot take."""


class Source(NamedTuple):
    """An image or a video.

    Attributes:
        path (Path): The file.
        target (str): Name of what is made of it, unique among all sources; may have folders.
        is_video (bool): By its suffix. All else is taken for an image.
    """

    path: Path
    target: str
    is_video: bool


def find_sources(inputs: Sequence[Path], written: Path) -> list[Source]:
    """Return the files of a command line, and all images and videos in the folders of it.

    Args:
        inputs (Sequence[Path]): Files and folders.
        written (Path): Folder of the results; what is in it is no input.

    Raises:
        InputError: A folder holds no image or video, or a file is in ``written``.
    """
    sources: list[Source] = []
    taken: set[str] = set()
    for given in inputs:
        for path, name in _files(given, written.resolve()):
            is_video = path.suffix.lower() in VIDEOS
            target = _target(name, '.mp4' if is_video else _suffix(path), taken)
            taken.add(target.lower())
            sources.append(Source(path, target, is_video))
    return sources


def find_left_out(inputs: Sequence[Path], written: Path) -> list[tuple[Path, str]]:
    """Return the images and videos in the folders of a command line that are not read, and why.

    Args:
        inputs (Sequence[Path]): Files and folders.
        written (Path): Folder of the results.
    """
    known, folders = IMAGE_SUFFIXES | VIDEOS, [given for given in inputs if given.is_dir()]
    return [
        (path, f'files with the suffix {path.suffix} are not read')
        for given in folders
        for path in _inside(given, written.resolve())
        if path.suffix.lower() not in known and _is_media(path)
    ]


def _is_media(path: Path) -> bool:
    if path.suffix.lower() in OTHER_MEDIA:
        return True
    kind = mimetypes.guess_type(path.name)[0] or ''
    return kind.startswith(('image/', 'video/'))


def _inside(folder: Path, written: Path) -> Iterator[Path]:
    """Yield all files in a folder but the hidden ones and the results."""
    for path in sorted(folder.rglob('*')):
        if (
            path.is_file()
            and not path.name.startswith('.')
            and written not in path.resolve().parents
        ):
            yield path


def _files(given: Path, written: Path) -> Iterator[tuple[Path, Path]]:
    """Paths, and their names from the folder that was given."""
    if not given.is_dir():
        if written in given.resolve().parents:
            raise InputError(f'{given} is in {written}, where the results are written')
        yield given, Path(given.name)
        return
    known = IMAGE_SUFFIXES | VIDEOS
    found = [path for path in _inside(given, written) if path.suffix.lower() in known]
    if not found:
        raise InputError(
            f'{given}: no images or videos in this folder ({SUFFIXES}; {VIDEO_SUFFIXES})'
        )
    for path in found:
        yield path, path.relative_to(given)


def _suffix(path: Path) -> str:
    return path.suffix if path.suffix.lower() in GRAPHICS else '.png'


def _target(name: Path, suffix: str, taken: set[str]) -> str:
    base = name.with_suffix('').as_posix()
    target, number = f'{base}{suffix}', 1
    while target.lower() in taken:
        number += 1
        target = f'{base}_{number}{suffix}'
    return target


def read_image(path: Path) -> np.ndarray:
    """Return an image as the data sets of the host libraries read it: (H, W, 3), BGR, 8 bit.

    Raises:
        UnreadableError: There is no such file, or it is no complete image.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    if not content:
        raise UnreadableError('the file is empty')
    if content.startswith(b'GIF8'):  # which not every version of OpenCV reads
        return _first_frame(content)
    image = mmcv.imfrombytes(content)
    if image is None:
        raise UnreadableError('no image, or a damaged one')
    _check_complete(content)
    return image


def _first_frame(content: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return mmcv.rgb2bgr(np.asarray(image.convert('RGB')))
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise UnreadableError(f'a damaged image ({error})') from error


def _check_complete(content: bytes) -> None:
    """OpenCV fills up with grey what is missing of an image; Pillow tells."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # a format, or a size, that only OpenCV takes
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError(f'a damaged image ({error})') from error
