"""Packaging of mmdla.

Nothing is in ``install_requires``: the two OpenMMLab families share their import names, so naming
one would overwrite the other, and PyTorch is for the user to choose. The extras name them.
"""

import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
MIM_FILES = ('configs', 'tools', 'model-index.yml')  # what `mim` looks for in mmdla/.mim
EXTRAS = {
    'onedl': [
        'torch==2.11.0',
        'torchvision==0.26.0',
        'onedl-mmengine==0.10.12',
        'onedl-mmcv==2.3.6',
        'onedl-mmdetection==3.5.1',
        'onedl-mmpretrain==1.3.6',
    ],
    'openmmlab': [
        'torch==2.4.1',
        'torchvision==0.19.1',
        'numpy<2',
        'setuptools<82',
        'mmengine==0.10.7',
        'mmcv==2.1.0',
        'mmdet==3.3.0',
        'mmpretrain==1.2.0',
    ],
    'onnx': ['onnx', 'onnxruntime', 'onnxscript'],
    'test': ['pytest', 'pytest-xdist', 'ruff', 'hypothesis'],
}


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
    version: dict[str, str] = {}
    exec((ROOT / 'mmdla' / 'version.py').read_text(), version)
    readme = ROOT / 'README.md'
    setup(
        name='mmdla',
        version=version['__version__'],
        description='Layer attention for OpenMMLab: DLA-ResNet for MMDetection and MMPretrain',
        long_description=readme.read_text() if readme.exists() else '',
        long_description_content_type='text/markdown',
        license='Apache-2.0',
        python_requires='>=3.10',
        packages=find_packages(include=('mmdla', 'mmdla.*')),
        package_data={'mmdla.ops': ['csrc/*']},
        extras_require=EXTRAS,
        cmdclass={'build_py': BuildWithMim},
        zip_safe=False,
    )
