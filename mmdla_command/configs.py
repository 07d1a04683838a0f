"""List, find and copy the shipped configs: ``mmdla configs``."""

from __future__ import annotations

import argparse
import ast
import shutil
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatch
from pathlib import Path

from .files import home


def config_names() -> list[str]:
    """Return the names of the shipped configs, sorted: file names without ``.py``."""
    return sorted(path.stem for path in (home() / 'configs').glob('*.py'))


def find_config(config: str) -> Path:
    """Return the path of a config file that is given by path, or by name if it is a shipped one.

    A file of that path wins over a shipped config of that name.

    Args:
        config (str): ``'configs/faster_rcnn_dla_r50.py'``, ``'faster_rcnn_dla_r50'``.
    """
    path = Path(config)
    if path.is_file() or path.name != config:
        return path
    name = config.removesuffix('.py')
    try:
        return home() / 'configs' / f'{name}.py' if name in config_names() else path
    except FileNotFoundError:  # a package without its configs
        return path


def suggest(name: str) -> str:
    """Return ``", did you mean …?"`` if a shipped config has a name like this one, else ``''``."""
    close = get_close_matches(name.removesuffix('.py'), config_names(), n=1)
    return f', did you mean {close[0]!r}?' if close else ''


def files_of(config: Path, folder: Path) -> list[Path]:
    """Return a config and the files that it inherits, paths relative to ``folder``.

    Bases of other packages (``mmdet::…``) are none of them: they are found by their names.
    """
    found = [config.relative_to(folder)]
    for base in _bases(config):
        if '::' not in base:
            found += files_of((config.parent / base).resolve(), folder)
    return list(dict.fromkeys(found))


def _bases(config: Path) -> list[str]:
    for node in ast.parse(config.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '_base_':
            value = ast.literal_eval(node.value)
            return [value] if isinstance(value, str) else list(value)
    return []


def copy_config(name: str, target: Path) -> list[Path]:
    """Copy a shipped config and its bases into a folder.

    Args:
        name (str): Of the config, with or without ``.py``.
        target (Path): The folder; made where it does not exist.

    Returns:
        list[Path]: What was written, the config first.

    Raises:
        ValueError: No config has this name, or a file would be written over.
    """
    folder = (home() / 'configs').resolve()
    name = name.removesuffix('.py')
    if name not in config_names():
        raise ValueError(f'there is no config {name!r}{suggest(name)}; mmdla configs lists them')
    files = files_of(folder / f'{name}.py', folder)
    for file in files:
        there = target / file
        if there.exists() and there.read_bytes() != (folder / file).read_bytes():
            raise ValueError(f'{there} exists and differs: remove it, or choose another --to')
    for file in files:
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / file, target / file)
    return [target / file for file in files]


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``mmdla configs``; return the exit code."""
    parser = argparse.ArgumentParser(
        prog='mmdla configs', description='List the shipped configs, or copy one to change it.'
    )
    parser.add_argument('pattern', nargs='?', default='*', help="which ones, e.g. 'faster_rcnn*'")
    parser.add_argument('--copy', metavar='NAME', help='copy this config, and what it inherits')
    parser.add_argument(
        '--to', type=Path, metavar='DIR', help='folder for --copy (default: configs)'
    )
    args = parser.parse_args(argv)
    if args.to and not args.copy:
        parser.error('--to goes with --copy')
    try:
        if args.copy:
            lines = [str(path) for path in copy_config(args.copy, args.to or Path('configs'))]
        else:
            lines = [name for name in config_names() if fnmatch(name, args.pattern)]
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if not lines:
        print(f'error: no config is named like {args.pattern!r}', file=sys.stderr)
        return 2
    print('\n'.join(lines))
    return 0
