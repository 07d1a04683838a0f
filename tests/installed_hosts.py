"""The host libraries of the stack that runs the tests, and which shipped configs can be read with it.

What is not in a stack has no release for its versions: MMPose none for those of the forks, MMRotate
none for MMDetection 3.3.
"""

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

EVERYWHERE = {'mmdet', 'mmpretrain', 'mmseg'}


def _hosts() -> set[str]:
    try:
        version('onedl-mmengine')
    except PackageNotFoundError:
        return EVERYWHERE | {'mmpose'}
    return EVERYWHERE | {'mmrotate'}


HOSTS = _hosts()


def has_host(path: Path) -> bool:
    """Whether the library is there whose config this file names as its base."""
    return {*re.findall(r"'(\w+)::", path.read_text())} <= HOSTS


def readable(paths: Iterable[Path]) -> list[Path]:
    """Those of these configs that can be read."""
    return [path for path in paths if has_host(path)]
