"""What an installed mmdla carries, and what it asks for."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_mmcv_wheel import ROOT

import mmdla
from mmdla import _dependencies


def test_editable_install_has_mim_files():
    folder = Path(mmdla.__file__).parent / '.mim'
    assert (folder / 'configs' / 'faster_rcnn_dla_r50.py').is_file()
    assert (folder / 'tools' / 'train.py').is_file()
    assert all(path.exists() for path in folder.iterdir()), 'dangling link'


def test_wheel_has_mim_files_and_requires_nothing(tmp_path):
    command = [sys.executable, '-m', 'pip', 'wheel', '-q', '--no-deps', '--no-build-isolation']
    subprocess.run([*command, '-w', str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob('mmdla-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (n for n in names if n.endswith('METADATA'))
        text = archive.read(metadata).decode()
    assert 'mmdla/.mim/configs/faster_rcnn_dla_r50.py' in names
    assert 'mmdla/.mim/tools/dist_train.sh' in names
    requires = [line for line in text.splitlines() if line.startswith('Requires-Dist')]
    assert requires and all('extra ==' in line for line in requires)
    assert {'Provides-Extra: onedl', 'Provides-Extra: openmmlab'} <= set(text.splitlines())


def test_message_without_openmmlab(monkeypatch):
    monkeypatch.setattr(_dependencies, 'find_spec', lambda name: None if name == 'mmcv' else name)
    with pytest.raises(ImportError, match=r'(?s)mmcv, which is not.*mmdla\[onedl\].*\[openmmlab\]'):
        _dependencies.check_dependencies()
