"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(target: Path, durable: bool = False) -> Iterator[Path]:
    """Gives the path to write to; what is there at the end becomes ``target``.

    The path has the suffix of ``target``, which tells some writers the format. After an error
    nothing is left of it, and an earlier ``target`` is as it was.

    Args:
        target (Path): The file.
        durable (bool): Wait until the content is on the disk, so that ``target`` is whole after a
            crash of the machine too. Default: False.
    """
    part = part_of(target)
    try:
        yield part
        if durable:
            _sync(part)
        os.replace(part, target)
        if durable:
            _sync(target.parent)
    finally:
        part.unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """The name under which a file is written; a process that is killed leaves it behind."""
    return target.with_name(f'{target.stem}.part{target.suffix}')


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
