"""The versions of everything that matters to mmdla, for questions and bug reports."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    'mmdla', 'torch', 'torchvision', 'numpy', 'setuptools', 'triton',
    'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain',
    'onedl-mmsegmentation', 'onedl-mmrotate',
    'mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmsegmentation', 'mmrotate', 'mmpose',
)  # fmt: skip


def installed_version(name: str) -> str | None:
    """Return the version of an installed distribution, None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def table() -> str:
    """Return a line for each package that is installed, without importing any of them."""
    rows = {'Python': f'{platform.python_version()} ({platform.platform()})'}
    rows |= {name: found for name in PACKAGES if (found := installed_version(name))}
    width = max(map(len, rows))
    return '\n'.join(f'{name:{width}}  {found}' for name, found in rows.items())
