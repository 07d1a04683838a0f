"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(target: Path) -> Iterator[Path]:
    """Gives the path to write to; what is there at the end becomes ``target``.

    The path has the suffix of ``target``, which tells some writers the format. After an error
    nothing is left of it, and an earlier ``target`` is as it was.
    """
    part = target.with_name(f'{target.stem}.part{target.suffix}')
    try:
        yield part
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
