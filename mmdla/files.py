"""Write files that are there complete or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmdla.errors import TrainingError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, the quota, the limit of a file

# what FUSE, network drives and Windows answer where a folder can be opened or synced by nobody
CANNOT_SYNC = (
    errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES,
    errno.EPERM, errno.EISDIR,
)  # fmt: skip


@contextmanager
def atomic_write(target: Path, durable: bool = False) -> Iterator[Path]:
    """Give the path to write to; what is there at the end becomes ``target``.

    The path has the suffix of ``target``, which tells some writers the format. After an error
    nothing is left of it, and an earlier ``target`` is as it was.

    Args:
        target (Path): The file.
        durable (bool): Wait until the content is on the disk, so that ``target`` is valid after a
            crash of the machine too. Default: False.
    """
    part = part_of(target)
    try:
        yield part
        if durable:
            _sync(part)
        os.replace(part, target)
        if durable:
            _sync_folder(target.parent)
    finally:
        part.unlink(missing_ok=True)


def part_of(target: Path) -> Path:
    """Return the name under which a file is written; a process that is killed leaves it behind."""
    return target.with_name(f'{target.stem}.part{target.suffix}')


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Let the new name survive a crash too, where folders can be synced: not on every drive."""
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in CANNOT_SYNC:
            raise


@contextmanager
def explain_full_disk(folder: str | os.PathLike) -> Iterator[None]:
    """Turn the error of a full disk while training into one that says how to go on.

    Args:
        folder (str): The work folder.

    Raises:
        TrainingError: The disk is full. Other errors pass unchanged.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise TrainingError(
            f'{error.filename or folder} could not be written ({error.strerror}). The checkpoints '
            f'of before in {folder} are valid: make room and go on from the last one with --resume '
            '(resume=True in the config)'
        ) from error
