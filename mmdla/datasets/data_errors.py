"""Say which file is to blame when reading data fails.

Decoding every image beforehand would take minutes on COCO, and data sets in other formats than
COCO's are not checked beforehand at all, so the files are looked at after something went wrong.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from urllib.error import URLError

from mmengine.config import Config

from mmdla.datasets.annotations import read_json
from mmdla.datasets.data import DataPath, data_paths, is_inside
from mmdla.errors import InputError

# what MMCV, Python and NumPy say, also when a worker process said it
UNREADABLE_IMAGE = re.compile(r'failed to load image: (.+)')
NO_IMAGES = 'need at least one array to concatenate'
MISSING_FILE = re.compile(r"No such file or directory: '(.+?)'")


@contextmanager
def explain_data_errors(cfg: Config, loaders: Iterable[str]) -> Iterator[None]:
    """Turn an error that broken data caused into one that names the file.

    Args:
        cfg (Config): A complete config.
        loaders (Iterable[str]): Keys of the dataloaders in use.

    Raises:
        InputError: An annotation file or an image cannot be read. Other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        message = _explain(error, data_paths(cfg, loaders))
        if message is None:
            raise
        raise InputError(message) from error


def _explain(error: Exception, paths: list[DataPath]) -> str | None:
    if isinstance(error, (json.JSONDecodeError, UnicodeDecodeError)):
        return _find_broken_json(paths)
    if isinstance(error, URLError):
        roots = ', '.join(sorted({p.root for p in paths}))
        where = f': {roots}' if roots else ''
        return f'the data set is not there and cannot be downloaded ({error.reason}){where}'
    text = str(error)
    if NO_IMAGES in text:
        files = ' or '.join(p.path for p in paths if not p.is_folder)
        return (
            f'no image is left in {files}: are the classes of the config (metainfo) those of the '
            'annotations, and are the images larger than filter_cfg asks for?'
        )
    # the last match, since the traceback of a worker process quotes MMCV's source as well
    if names := UNREADABLE_IMAGE.findall(text):
        return f'{names[-1]}: not an image that can be read ({_size(names[-1])})'
    if names := MISSING_FILE.findall(text):
        for p in paths:
            if p.is_folder and is_inside(names[-1], p.path):
                return f'{names[-1]}: the annotations name this image, but it is not there'
    if 'imdecode' in text and (empty := _find_empty_file(paths)):
        return f'{empty}: the file is empty'
    return None


def _find_broken_json(paths: list[DataPath]) -> str | None:
    for p in paths:
        if not p.path.endswith('.json'):
            continue
        try:
            read_json(p.path)
        except InputError as error:
            return str(error)
    return None


def _find_empty_file(paths: list[DataPath]) -> str | None:
    for p in paths:
        if p.is_folder:
            for folder, _, names in os.walk(p.path):
                for name in names:
                    path = os.path.join(folder, name)
                    if os.path.getsize(path) == 0:
                        return path
    return None


def _size(path: str) -> str:
    return f'{os.path.getsize(path)} bytes' if os.path.isfile(path) else 'no file'
