"""Verify checkpoints, and find the latest valid one of a run."""

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from .errors import CheckpointError

LEGACY = b'\x80'  # how a checkpoint of PyTorch before 1.6 begins, which has no checksums
CHUNK = 1 << 20


def verify_checkpoint(path: str | os.PathLike) -> str | None:
    """Return what is wrong with a checkpoint file, judged by its size and checksums alone.

    PyTorch writes zip archives with a checksum for every tensor, the directory of the archive at
    its end. So this reads the file once and unpickles nothing.
    Folders, as DeepSpeed writes them, are not looked into.

    Returns:
        str, optional: The damage in words, ``None`` for a valid file.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return None
        if not path.is_file():
            return 'there is no such file'
        if path.stat().st_size == 0:
            return 'the file is empty'
        with path.open('rb') as file:
            if file.read(1) == LEGACY:
                return None
        if record := corrupt_record(path):
            return f'the checksum of {record} in it is wrong'
        with zipfile.ZipFile(path) as archive:
            if not any(name.endswith('/data.pkl') for name in archive.namelist()):
                return 'it is an archive, but not one of PyTorch'
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
    except zipfile.BadZipFile as error:
        return f'it is cut off or no checkpoint ({str(error).rstrip(".")})'
    except Exception as error:  # a damaged directory makes zipfile raise nearly anything
        return f'it is damaged ({type(error).__name__}: {error})'
    return None


def corrupt_record(path: str | os.PathLike | IO[bytes]) -> str | None:
    """Return the first record of a zip archive that its checksum contradicts.

    Raises:
        zipfile.BadZipFile: It is no zip archive, or its directory is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        for record in archive.infolist():
            if not record.CRC:
                continue  # written without checksums, which PyTorch allows
            try:
                with archive.open(record) as file:
                    while file.read(CHUNK):
                        pass
            except zipfile.BadZipFile:
                return record.filename
    return None


def latest_valid_checkpoint(
    work_dir: str | os.PathLike,
    folder: str | os.PathLike,
    template: str,
    tell: Callable[[str], object],
) -> Path | None:
    """Return the checkpoint that a run should go on from.

    MMEngine follows the file ``last_checkpoint`` blindly. Here every candidate is examined, the
    newest first: files that are newer than ``last_checkpoint`` and have a higher number (the run
    was killed before it could write their name), the one that it names, those with lower numbers.
    If it names none, the age of the files decides.

    Args:
        work_dir (str): Folder of the run, with ``last_checkpoint``.
        folder (str): Folder of the checkpoints.
        template (str): Name of a checkpoint, with ``{}`` for its number: ``epoch_{}.pth``.
        tell (Callable): Is told, in a sentence each, what was passed over and why.

    Returns:
        Path, optional: The checkpoint, ``None`` if there is none at all.

    Raises:
        CheckpointError: There are checkpoints, but none is valid.
    """
    numbers = _numbered(Path(folder), template)
    by_age = sorted(numbers, key=lambda path: (_age(path), numbers[path]), reverse=True)
    named, age = _named(Path(work_dir) / 'last_checkpoint', tell)
    number = -1 if named is None else _number(named.name, template)
    if named is None:
        order = by_age
    elif number < 0:
        order = [named, *by_age]
    else:
        falling = sorted(numbers, key=numbers.__getitem__, reverse=True)
        newer = [path for path in falling if numbers[path] > number and _age(path) >= age]
        order = [*newer, named, *(path for path in falling if numbers[path] <= number)]
    problems = []
    for path in {path.resolve(): path for path in order}.values():
        damage = verify_checkpoint(path)
        if damage is None:
            if problems:
                tell(f'going on from {path}, the newest valid checkpoint')
            return path
        problems.append(f'{path}: {damage}')
        tell(f'{path} is passed over: {damage}')
    if any(path.exists() for path in order):
        raise CheckpointError(
            'there are checkpoints, but none to go on from:\n  ' + '\n  '.join(problems)
        )
    return None


def _numbered(folder: Path, template: str) -> dict[Path, int]:
    if not folder.is_dir():
        return {}
    numbers = {path: _number(path.name, template) for path in folder.iterdir()}
    return {path: number for path, number in numbers.items() if number >= 0}


def _number(name: str, template: str) -> int:
    before, _, after = template.partition('{}')
    match = re.fullmatch(re.escape(before) + r'(\d+)' + re.escape(after), name)
    return int(match[1]) if match else -1


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns


def _named(file: Path, tell: Callable[[str], object]) -> tuple[Path | None, int]:
    """Return what ``last_checkpoint`` names, and when it was written."""
    try:
        name = file.read_text().strip()
    except FileNotFoundError:
        return None, 0
    except (OSError, UnicodeDecodeError) as error:
        tell(f'{file} is passed over: it cannot be read ({error})')
        return None, 0
    if not name or '\n' in name or '\0' in name:
        tell(f'{file} is passed over: it names no checkpoint')
        return None, 0
    return Path(name), _age(file)
