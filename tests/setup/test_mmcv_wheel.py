"""The cache of the compiled mmcv: its key, what it accepts and what it does with ruins."""

import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OPS = 'x = 1'


def load(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / 'setup' / f'{name}.py')
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mmcv_wheel = load('mmcv_wheel')
WHEEL = f'onedl_mmcv-{mmcv_wheel.pin("onedl-mmcv", "mmcv.txt")}-any.whl'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path))
    monkeypatch.delenv('MMDLA_CUDA', raising=False)
    monkeypatch.setattr(mmcv_wheel, 'NEEDED_BY_MMCV', 'import json')
    monkeypatch.setattr(mmcv_wheel, 'POLL_SECONDS', 0.1)
    folder = mmcv_wheel.folder(sys.version_info)
    folder.mkdir(parents=True)
    return folder


def put_wheel(folder, extension='mmcv/_ext.so', ops=OPS):
    path = folder / WHEEL
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr(extension, b'ops' * 1000)
        archive.writestr('mmcv/__init__.py', '')
        archive.writestr('mmcv/ops.py', ops)
    return path


def python_whose_pip(folder, script):
    """A Python whose ``-m pip wheel … -w DIR -r FILE`` runs a shell script, with $dir set."""
    python = folder / 'python'
    python.write_text(
        f'#!/bin/sh\nif [ "$1" = -c ]; then exec {sys.executable} "$@"; fi\n'
        f'while [ "$1" != -w ]; do shift; done; dir=$2\n{script}\n'
    )
    python.chmod(0o755)
    return python


def test_key_names_torch_and_python(cache, monkeypatch):
    key = f'torch{mmcv_wheel.pin("torch", "onedl.txt")}-cp3{sys.version_info[1]}'
    assert cache.name == key
    monkeypatch.setenv('MMDLA_CUDA', '1')
    assert mmcv_wheel.folder(sys.version_info).name == f'{key}-cuda'


def test_a_whole_wheel_is_used(cache):
    assert mmcv_wheel.cached(sys.version_info) is None
    wheel = put_wheel(cache)
    assert mmcv_wheel.cached(sys.version_info) == wheel
    assert mmcv_wheel.get(Path(sys.executable)) == wheel


def test_damaged_wheels_are_not(cache):
    wheel = put_wheel(cache)
    wheel.write_bytes(wheel.read_bytes()[:500])
    assert mmcv_wheel.cached(sys.version_info) is None
    put_wheel(cache, extension='mmcv/without_ops.py')
    assert mmcv_wheel.cached(sys.version_info) is None


def test_a_killed_build_is_cleared(cache):
    (cache / 'build-123' / 'deep').mkdir(parents=True)
    put_wheel(cache)
    mmcv_wheel.get(Path(sys.executable))
    assert not list(cache.glob('build-*'))


def test_wheel_is_accepted_when_it_is_built_and_works(cache, tmp_path):
    good = put_wheel(tmp_path)
    python = python_whose_pip(tmp_path, f'cp {good} "$dir"; echo built')
    assert mmcv_wheel.get(python) == cache / WHEEL
    assert mmcv_wheel.is_whole(cache / WHEEL)
    assert not list(cache.glob('build-*'))


def test_wheel_for_another_torch_is_replaced(cache, tmp_path):
    good = put_wheel(tmp_path)
    put_wheel(cache, ops='raise ImportError("undefined symbol")')
    mmcv_wheel.get(python_whose_pip(tmp_path, f'cp {good} "$dir"'))
    assert zipfile.ZipFile(cache / WHEEL).read('mmcv/ops.py').decode() == OPS


def test_wheel_is_kept_when_the_environment_is_at_fault(cache, tmp_path, monkeypatch):
    wheel = put_wheel(cache)
    monkeypatch.setattr(mmcv_wheel, 'NEEDED_BY_MMCV', 'raise ImportError("no torch")')
    with pytest.raises(mmcv_wheel.BuildError, match=r'(?s)\.venv is damaged.*no torch'):
        mmcv_wheel.get(Path(sys.executable))
    assert wheel.exists()


@pytest.mark.parametrize(
    ('script', 'words'),
    [
        ('echo compiler: out of memory; exit 1', r'(?s)exit code 1\b.*build\.log.*out of memory'),
        ('echo half > "$dir"/' + WHEEL, 'could not be compiled'),
        ('cp bad.whl "$dir"/' + WHEEL, r'(?s)does not work.*undefined symbol'),
    ],
)
def test_failed_build_says_why_and_leaves_no_wheel(cache, tmp_path, monkeypatch, script, words):
    put_wheel(tmp_path, ops='raise ImportError("undefined symbol")').rename(tmp_path / 'bad.whl')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mmcv_wheel.BuildError, match=words):
        mmcv_wheel.get(python_whose_pip(tmp_path, script))
    assert not list(cache.glob('*.whl'))


def test_second_set_up_waits_for_the_first(cache, tmp_path):
    good = put_wheel(tmp_path)
    script = f'echo x >> {tmp_path}/builds; sleep 1; cp {good} "$dir"'
    python = python_whose_pip(tmp_path, script)
    code = (
        'import sys, pathlib, mmcv_wheel as m; m.NEEDED_BY_MMCV = "import json"; m.POLL_SECONDS = 1;'
        'print(m.get(pathlib.Path(sys.argv[1])))'
    )
    environment = {**os.environ, 'PYTHONPATH': str(ROOT / 'tools' / 'setup')}
    both = [
        subprocess.Popen(
            [sys.executable, '-c', code, str(python)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert all(text.splitlines()[-1] == str(cache / WHEEL) for text in said)
    assert any('waiting' in text for text in said)
    assert (tmp_path / 'builds').read_text() == 'x\n'


def test_progress_counts_compiled_files(tmp_path):
    assert 'preparing' in mmcv_wheel.progress(tmp_path, 30)
    plan = ''.join(f'build /tmp/{i}.o: compile {i}.cpp\n' for i in range(4))
    (tmp_path / 'build.ninja').write_text(plan)
    (tmp_path / '0.o').touch()
    assert mmcv_wheel.progress(tmp_path, 120) == ' 2.0 min, 1/4 files compiled, about 6 min left'
