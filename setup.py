"""Packaging of mmdla: what ``pyproject.toml`` cannot say, the files for ``mim`` and ``mmdla``."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# what `mim` and the command `mmdla` look for in mmdla/.mim
MIM_FILES = ('configs', 'tools', 'requirements', 'model-index.yml')


class BuildWithMim(build_py):
    """Put configs and tools where ``mim`` finds them: copied, or linked in editable installs."""

    def run(self):
        super().run()
        if self.editable_mode:
            put_mim_files(ROOT / 'mmdla' / '.mim', link=True)
        else:
            put_mim_files(Path(self.build_lib) / 'mmdla' / '.mim', link=False)


def put_mim_files(folder: Path, link: bool) -> None:
    """Fill ``folder`` anew with what there is of ``MIM_FILES``."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.is_dir():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name in MIM_FILES:
        source, target = ROOT / name, folder / name
        if not source.exists():
            continue
        if link:
            target.symlink_to(Path('..', '..', name), target_is_directory=source.is_dir())
        elif source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns('__pycache__'))
        else:
            shutil.copy2(source, target)


if __name__ == '__main__':
    setup(cmdclass={'build_py': BuildWithMim})
