"""The cache of the compiled mmcv: its key, what it accepts and what it does with ruins."""

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mmdla_command import mmcv_wheel

ROOT = Path(__file__).resolve().parents[2]
OPS = 'x = 1'


def load(name):
    """A module of ``dev/setup``, which finds the others there."""
    folder = str(ROOT / 'dev' / 'setup')
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


stacks = load('stacks')
BUILD = stacks.ONEDL.mmcv_build()
WHEEL = f'onedl_mmcv-{BUILD.version}-any.whl'


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path))
    monkeypatch.delenv('MMDLA_CUDA', raising=False)
    monkeypatch.setattr(mmcv_wheel, 'NEEDED_BY_MMCV', 'import json')
    monkeypatch.setattr(mmcv_wheel, 'POLL_SECONDS', 0.1)
    folder = mmcv_wheel.folder(BUILD, sys.version_info)
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
        f'echo "$@" > {folder}/arguments; while [ "$1" != -w ]; do shift; done; dir=$2\n{script}\n'
    )
    python.chmod(0o755)
    return python


def test_key_names_torch_and_python(cache, monkeypatch):
    key = f'torch{BUILD.torch}-cp3{sys.version_info[1]}'
    assert cache.name == key
    monkeypatch.setenv('MMDLA_CUDA', '1')
    assert mmcv_wheel.folder(BUILD, sys.version_info).name == f'{key}-cuda'


def test_wheels_lie_in_the_home_folder_unless_moved(tmp_path, monkeypatch):
    monkeypatch.delenv('MMDLA_CACHE', raising=False)
    monkeypatch.setenv('HOME', str(tmp_path))
    wheels = mmcv_wheel.folder(BUILD, sys.version_info).parent
    assert wheels == tmp_path / '.cache' / 'mmdla' / 'wheels'
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path / 'elsewhere'))
    assert mmcv_wheel.folder(BUILD, sys.version_info).parent == tmp_path / 'elsewhere' / 'wheels'


def test_each_family_has_its_own_wheel(cache):
    other = stacks.OPENMMLAB.mmcv_build()
    folder = mmcv_wheel.folder(other, sys.version_info)
    assert folder != cache and folder.name.startswith(f'torch{other.torch}-')
    put_wheel(cache)
    folder.mkdir()
    put_wheel(folder)
    assert mmcv_wheel.cached(other, sys.version_info) is None
    right = (folder / WHEEL).rename(folder / f'mmcv-{other.version}-any.whl')
    assert mmcv_wheel.cached(other, sys.version_info) == right


def test_a_whole_wheel_is_used(cache):
    assert mmcv_wheel.cached(BUILD, sys.version_info) is None
    wheel = put_wheel(cache)
    assert mmcv_wheel.cached(BUILD, sys.version_info) == wheel
    assert mmcv_wheel.get(BUILD, Path(sys.executable)) == wheel


def test_damaged_wheels_are_not(cache):
    wheel = put_wheel(cache)
    wheel.write_bytes(wheel.read_bytes()[:500])
    assert mmcv_wheel.cached(BUILD, sys.version_info) is None
    put_wheel(cache, extension='mmcv/without_ops.py')
    assert mmcv_wheel.cached(BUILD, sys.version_info) is None


def test_a_killed_build_is_cleared(cache):
    (cache / 'build-123' / 'deep').mkdir(parents=True)
    put_wheel(cache)
    mmcv_wheel.get(BUILD, Path(sys.executable))
    assert not list(cache.glob('build-*'))


def test_wheel_is_accepted_when_it_is_built_and_works(cache, tmp_path):
    good = put_wheel(tmp_path)
    python = python_whose_pip(tmp_path, f'cp {good} "$dir"; echo built')
    assert mmcv_wheel.get(BUILD, python) == cache / WHEEL
    assert mmcv_wheel.is_valid(cache / WHEEL)
    arguments = (tmp_path / 'arguments').read_text()
    assert f'--require-hashes -r {BUILD.requirements}' in arguments
    assert '--no-cache-dir' in arguments and '--no-build-isolation' in arguments
    assert not list(cache.glob('build-*'))


def test_wheel_for_another_torch_is_replaced(cache, tmp_path):
    good = put_wheel(tmp_path)
    put_wheel(cache, ops='raise ImportError("undefined symbol")')
    mmcv_wheel.get(BUILD, python_whose_pip(tmp_path, f'cp {good} "$dir"'))
    assert zipfile.ZipFile(cache / WHEEL).read('mmcv/ops.py').decode() == OPS


def test_wheel_is_kept_when_the_environment_is_at_fault(cache, tmp_path, monkeypatch):
    wheel = put_wheel(cache)
    monkeypatch.setattr(mmcv_wheel, 'NEEDED_BY_MMCV', 'raise ImportError("no torch")')
    with pytest.raises(mmcv_wheel.BuildError, match=r'(?s)\.venv is damaged.*no torch'):
        mmcv_wheel.get(BUILD, Path(sys.executable))
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
        mmcv_wheel.get(BUILD, python_whose_pip(tmp_path, script))
    assert not list(cache.glob('*.whl'))


def test_second_set_up_waits_for_the_first(cache, tmp_path):
    good = put_wheel(tmp_path)
    script = f'echo x >> {tmp_path}/builds; sleep 1; cp {good} "$dir"'
    python = python_whose_pip(tmp_path, script)
    code = (
        'import sys, pathlib, stacks; from mmdla_command import mmcv_wheel as m; m.NEEDED_BY_MMCV = "import json";'
        'm.POLL_SECONDS = 1; print(m.get(stacks.ONEDL.mmcv_build(), pathlib.Path(sys.argv[1])))'
    )
    paths = f'{ROOT / "dev" / "setup"}:{os.environ["PYTHONPATH"]}'
    environment = {**os.environ, 'PYTHONPATH': paths}
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
    assert 'preparing; an hour in all' in mmcv_wheel.progress(tmp_path, 30, 'an hour')
    plan = ''.join(f'build /tmp/{i}.o: compile {i}.cpp\n' for i in range(4))
    (tmp_path / 'build.ninja').write_text(plan)
    (tmp_path / '0.o').touch()
    assert (
        mmcv_wheel.progress(tmp_path, 120, '') == ' 2.0 min, 1/4 files compiled, about 6 min left'
    )
