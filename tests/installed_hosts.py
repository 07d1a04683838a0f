"""Which shipped configs can be read here: those whose base is of an installed library."""

import re
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

UPSTREAM_ONLY = {'mmpose'}  # not in the default stack


def has_host(path: Path) -> bool:
    """Whether the library is there whose config this file names as its base."""
    hosts = re.findall(r"'(\w+)::", path.read_text())
    return all(find_spec(host) for host in UPSTREAM_ONLY & {*hosts})


def readable(paths: Iterable[Path]) -> list[Path]:
    """Those of these configs that can be read."""
    return [path for path in paths if has_host(path)]
