"""Pictures and videos that a command line names."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import InputError

PICTURES = {
    '.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp',
}  # fmt: skip
VIDEOS = {'.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv'}
GRAPHICS = PICTURES - {'.pgm', '.ppm'}  # formats that pictures are also written in


class UnreadableError(Exception):
    """A file that is no picture or video, or is damaged; the message says why."""


class Source(NamedTuple):
    """A picture or a video.

    Attributes:
        path (Path): The file.
        target (str): Name of what is made of it, unique among all sources; may have folders.
        is_video (bool): By its suffix. All else is taken for a picture.
    """

    path: Path
    target: str
    is_video: bool


def find_sources(inputs: Sequence[Path], written: Path) -> list[Source]:
    """The files of a command line, and all pictures and videos in the folders of it.

    Args:
        inputs (Sequence[Path]): Files and folders.
        written (Path): Folder of the results; what is in it is no input.

    Raises:
        InputError: A folder holds no picture or video, or a file is in ``written``.
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


def _files(given: Path, written: Path) -> Iterator[tuple[Path, Path]]:
    """Paths, and their names from the folder that was given."""
    if not given.is_dir():
        if written in given.resolve().parents:
            raise InputError(f'{given} is in {written}, where the results are written')
        yield given, Path(given.name)
        return
    found = [
        path
        for path in sorted(given.rglob('*'))
        if path.suffix.lower() in PICTURES | VIDEOS
        and path.is_file()
        and not path.name.startswith('.')
        and written not in path.resolve().parents
    ]
    if not found:
        raise InputError(f'{given}: no pictures or videos in this folder')
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


def read_picture(path: Path) -> np.ndarray:
    """A picture as the data sets of the host libraries read it: (H, W, 3), BGR, 8 bit.

    Raises:
        UnreadableError: There is no such file, or it is no whole picture.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableError(error.strerror or str(error)) from error
    if not content:
        raise UnreadableError('the file is empty')
    picture = mmcv.imfrombytes(content)
    if picture is None:
        raise UnreadableError('no picture, or a damaged one')
    _check_whole(content)
    return picture


def _check_whole(content: bytes) -> None:
    """OpenCV fills up with grey what is missing of a picture; Pillow tells."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return  # a format, or a size, that only OpenCV takes
    except (OSError, SyntaxError, ValueError) as error:
        raise UnreadableError(f'a damaged picture ({error})') from error
