"""Where the shipped configs and locks lie: in the clone, or in the installed package."""

from __future__ import annotations

from pathlib import Path

PARENT = Path(__file__).resolve().parents[1]  # the clone, or site-packages


def home(parent: Path = PARENT) -> Path:
    """Return the folder that holds ``configs`` and ``requirements``.

    Args:
        parent (Path): Folder of the packages ``mmdla`` and ``mmdla_command``.

    Raises:
        FileNotFoundError: Neither a clone nor an installed package is there.
    """
    clone = all((parent / name).is_file() for name in ('pyproject.toml', 'model-index.yml'))
    folder = parent if clone else parent / 'mmdla' / '.mim'
    if not (folder / 'configs').is_dir():
        raise FileNotFoundError(f'{folder / "configs"} is not there: install mmdla again with pip')
    return folder
