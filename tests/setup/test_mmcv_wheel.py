"""The cache of the compiled mmcv: its key, what it accepts and what it does with ruins."""

import importlib.util
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / 'setup' / f'{name}.py')
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mmcv_wheel = load('mmcv_wheel')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path))
    folder = mmcv_wheel.folder(sys.version_info)
    folder.mkdir(parents=True)
    return folder


def put_wheel(folder, name='mmcv/_ext.so'):
    path = folder / f'onedl_mmcv-{mmcv_wheel.pin("onedl-mmcv", "mmcv.txt")}-any.whl'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(name, b'ops' * 1000)
    return path


def test_key_names_torch_and_python(cache):
    assert cache.name == f'torch{mmcv_wheel.pin("torch", "onedl.txt")}-cp3{sys.version_info[1]}'


def test_a_whole_wheel_is_used(cache):
    assert mmcv_wheel.cached(sys.version_info) is None
    wheel = put_wheel(cache)
    assert mmcv_wheel.cached(sys.version_info) == wheel
    assert mmcv_wheel.get(Path(sys.executable)) == wheel


def test_damaged_wheels_are_not(cache):
    wheel = put_wheel(cache)
    wheel.write_bytes(wheel.read_bytes()[:500])
    assert mmcv_wheel.cached(sys.version_info) is None
    put_wheel(cache, name='mmcv/without_ops.py')
    assert mmcv_wheel.cached(sys.version_info) is None


def test_a_killed_build_is_cleared(cache):
    (cache / 'build-123' / 'deep').mkdir(parents=True)
    put_wheel(cache)
    mmcv_wheel.get(Path(sys.executable))
    assert not (cache / 'build-123').exists()


def test_failed_build_says_where_to_look_and_leaves_no_wheel(cache, tmp_path, monkeypatch):
    python = tmp_path / 'python'
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n'
        'echo compiler: out of memory; exit 1\n'
    )
    python.chmod(0o755)
    monkeypatch.setattr(mmcv_wheel, 'POLL_SECONDS', 0.1)
    with pytest.raises(mmcv_wheel.BuildError, match=r'(?s)build\.log.*out of memory'):
        mmcv_wheel.get(python)
    assert not list(cache.glob('*.whl'))


def test_progress_counts_compiled_files(tmp_path):
    assert 'preparing' in mmcv_wheel.progress(tmp_path, 30)
    plan = ''.join(f'build /tmp/{i}.o: compile {i}.cpp\n' for i in range(4))
    (tmp_path / 'build.ninja').write_text(plan)
    (tmp_path / '0.o').touch()
    assert mmcv_wheel.progress(tmp_path, 120) == ' 2.0 min, 1/4 files compiled, about 6 min left'
