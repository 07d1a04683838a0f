"""What an installed mmdla carries, and what it asks for."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from fixtures import DINER
from packaging.requirements import Requirement
from test_mmcv_wheel import ROOT, stacks

import mmdla
from mmdla import _dependencies
from mmdla.ops import extension

PACKAGE = (
    'mmdla', 'mmdla_command', 'configs', 'tools', 'requirements', 'model-index.yml', 'setup.py',
    'pyproject.toml', 'MANIFEST.in', 'README.md', 'CHANGELOG.md', 'SECURITY.md', 'LICENSE',
    'CITATION.cff',
)  # fmt: skip


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    """A copy of the sources, so that building leaves nothing in the clone."""
    folder = tmp_path_factory.mktemp('source')
    unwanted = shutil.ignore_patterns('__pycache__', '.mim')
    for name in PACKAGE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, folder / name, ignore=unwanted)
        else:
            shutil.copy2(path, folder)
    return folder


def build(hook, source, target):
    """Call one hook of the build backend, as pip does; return the file that it wrote."""
    code = f'from setuptools.build_meta import {hook}; {hook}({str(target)!r})'
    subprocess.run([sys.executable, '-c', code], cwd=source, check=True, capture_output=True)
    (file,) = target.glob('mmdla-*')
    return file


def test_wheel_has_mim_files_and_requires_nothing(source, tmp_path):
    with zipfile.ZipFile(build('build_wheel', source, tmp_path)) as archive:
        names = archive.namelist()
        (entry_points,) = (name for name in names if name.endswith('entry_points.txt'))
        assert 'mmdla = mmdla_command.main:main' in archive.read(entry_points).decode()
        (metadata,) = (name for name in names if name.endswith('METADATA'))
        text = archive.read(metadata).decode()
    configs = [path.relative_to(ROOT).as_posix() for path in ROOT.glob('configs/**/*.py')]
    assert configs and {f'mmdla/.mim/{name}' for name in configs} <= set(names)
    index = {'mmdla/.mim/model-index.yml', 'mmdla/.mim/configs/metafile.yml'}
    assert index | {
        'mmdla/.mim/tools/dist_train.sh',
        'mmdla/analysis/inspection/report.html',
    } <= set(names)
    kernels = [path.relative_to(ROOT).as_posix() for path in ROOT.glob('mmdla/ops/csrc/*')]
    assert kernels and {'mmdla/py.typed', 'mmdla_command/py.typed', *kernels} <= set(names)
    assert any(re.fullmatch(r'mmdla-.*/licenses/LICENSE', name) for name in names)
    assert {name.partition('/')[0].partition('-')[0] for name in names} == {
        'mmdla',
        'mmdla_command',
    }
    requires = [line for line in text.splitlines() if line.startswith('Requires-Dist')]
    assert requires and all('extra ==' in line for line in requires)
    assert f'Version: {mmdla.__version__}' in text.splitlines()
    assert {'Provides-Extra: onedl', 'Provides-Extra: openmmlab'} <= set(text.splitlines())
    assert 'License-Expression: Apache-2.0' in text.splitlines()


def test_sdist_has_what_the_wheel_is_made_of(source, tmp_path):
    with tarfile.open(build('build_sdist', source, tmp_path)) as archive:
        names = {name.partition('/')[2] for name in archive.getnames()}
    assert {'configs/faster_rcnn_dla_r50.py', 'tools/dist_train.sh', 'setup.py'} <= names
    assert {'CHANGELOG.md', 'SECURITY.md', 'mmdla/ops/csrc/library.cpp'} <= names
    assert {'LICENSE', 'CITATION.cff', 'requirements/onedl-mmcv.txt'} <= names
    assert not any(name.startswith(('mmdla/.mim', 'tests')) for name in names)


@pytest.fixture(scope='module')
def installed(source, tmp_path_factory):
    """``installed(*argv)`` runs the command of an unpacked wheel, outside the clone."""
    site, folder = (tmp_path_factory.mktemp(name) for name in ('site', 'elsewhere'))
    with zipfile.ZipFile(build('build_wheel', source, tmp_path_factory.mktemp('wheel'))) as archive:
        archive.extractall(site)
    code = f"""
import sys
import mmdla, mmdla_command.main as command
assert mmdla.__file__.startswith({str(site)!r}) and command.__file__.startswith({str(site)!r})
sys.exit(command.main())
"""

    def run(*argv):
        return subprocess.run(
            [sys.executable, '-c', code, *map(str, argv)],
            cwd=folder,
            env={**os.environ, 'PYTHONPATH': str(site)},
            capture_output=True,
            text=True,
        )

    return run


def test_wheel_builds_the_kernels(installed):
    """From its own sources; they are those of the clone, so that builds are shared."""
    result = installed('build')
    assert result.returncode == 0, result.stderr
    assert extension.Kernels().name in result.stdout


def test_wheel_predicts_and_knows_its_configs(installed, small_config, checkpoint, tmp_path):
    names = installed('configs').stdout.split()
    assert names == sorted(path.stem for path in ROOT.glob('configs/*.py'))
    result = installed(
        'predict', small_config, checkpoint, DINER / 'photo.jpg', '--out', tmp_path / 'found'
    )
    assert result.returncode == 0, result.stderr
    assert len(json.loads((tmp_path / 'found/predictions.json').read_text())['results']) == 1


@pytest.mark.parametrize('before', ['nothing', 'folder', 'dangling link'])
def test_editable_install_links_mim_files(source, tmp_path, before):
    folder = source / 'mmdla' / '.mim'
    shutil.rmtree(folder, ignore_errors=True)
    if before == 'folder':
        folder.mkdir()
        (folder / 'gone.yml').symlink_to('/nowhere/gone.yml')
    elif before == 'dangling link':
        folder.symlink_to('/nowhere')
    build('build_editable', source, tmp_path)
    names = ['configs', 'model-index.yml', 'requirements', 'tools']
    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / 'configs' / 'faster_rcnn_dla_r50.py').samefile(
        source / 'configs' / 'faster_rcnn_dla_r50.py'
    )


def test_editable_install_wins_over_the_folder_of_the_clone(source, tmp_path):
    """Python started beside the clone sees a folder ``mmdla`` without ``__init__.py`` first."""
    clone = tmp_path / 'mmdla'
    shutil.copytree(source, clone, symlinks=True)
    (tmp_path / 'wheel').mkdir()
    site = tmp_path / 'site'
    with zipfile.ZipFile(build('build_editable', clone, tmp_path / 'wheel')) as archive:
        archive.extractall(site)
    (clone / 'mmdla' / '__init__.py').write_text('there = True')
    code = f"""
import site, sys
site.addsitedir({str(site)!r})
import mmdla
print(mmdla.there)
"""
    command = [sys.executable, '-S', '-E', '-c', code]  # with the folder of now first on the path
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == 'True\n', result.stderr


def test_this_install_has_mim_files():
    folder = Path(mmdla.__file__).parent / '.mim'
    assert (folder / 'tools' / 'train.py').is_file()
    assert all(path.exists() for path in folder.iterdir()), 'dangling link'


@pytest.mark.parametrize('stack', stacks.STACKS.values(), ids=stacks.STACKS)
def test_extra_names_the_stack_that_is_set_up(stack):
    """All but mmcv, which pip would compile without its operations."""
    text = (ROOT / 'pyproject.toml').read_text()
    extra = re.search(rf'^{stack.name} = \[(.*?)^\]', text, re.S | re.M)[1]
    pins = ''.join(stack.lock(part).read_text() for part in ('', 'mm', 'mmcv'))
    requirements = [Requirement(line) for line in re.findall(r"'(.*?)'", extra)]
    for requirement in requirements:
        pinned = re.search(rf'^{requirement.name}==([^\s;]+)', pins, re.M)
        assert pinned and pinned[1] in requirement.specifier, requirement
    names = {requirement.name for requirement in requirements}
    assert {'torch', 'setuptools', 'wheel', 'ninja'} < names and stack.mmcv not in names


@pytest.mark.parametrize(
    ('stack', 'packages'),
    [
        (stacks.ONEDL, ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'onedl-mmpretrain')),
        (stacks.OPENMMLAB, ('mmengine', 'mmcv', 'mmdet', 'mmpretrain')),
    ],
    ids=stacks.STACKS,
)
def test_readme_names_the_versions_of_the_locks(stack, packages):
    parts = ('mm', 'mmcv', 'mm', 'mm')
    versions = [stack.pin(name, part) for name, part in zip(packages, parts, strict=True)]
    section = (ROOT / 'README.md').read_text().partition('## Versions')[2]
    rows = [
        [c.strip() for c in line.split('|')[1:-1]] for line in section.split('\n') if '|' in line
    ]
    titles = ['Python', 'PyTorch', 'torchvision', 'MMEngine', 'MMCV', 'MMDetection', 'MMPretrain']
    assert rows[0][1:8] == titles
    expected = ['3.11', stack.pin('torch'), stack.pin('torchvision'), *versions]
    assert expected in [row[1:8] for row in rows if f'`{stack.name}`' in row[0]]


@pytest.mark.parametrize('missing', ['mmcv', 'mmengine'])
def test_message_without_openmmlab(monkeypatch, missing):
    monkeypatch.setattr(_dependencies, 'find_spec', lambda name: None if name == missing else name)
    words = rf'(?s){missing}, which is not.*\[onedl\].*\[openmmlab\].*mmdla install-mmcv'
    with pytest.raises(ImportError, match=words):
        _dependencies.check_dependencies()
