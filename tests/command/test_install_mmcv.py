"""Which mmcv an environment gets, and what is missing before it can be compiled."""

import os
import sys
from pathlib import Path

import pytest

from mmdla_command import install_mmcv
from mmdla_command.install_mmcv import MissingError, build_for, check_environment


@pytest.mark.parametrize(
    ('engine', 'distribution', 'version'),
    [('onedl-mmengine', 'onedl-mmcv', '2.3.6'), ('mmengine', 'mmcv', '2.1.0')],
)
def test_the_tested_version_of_the_family_with_its_hash(engine, distribution, version):
    build = build_for({engine: '0.10.7', 'torch': '2.5.1+cpu'})
    assert (build.distribution, build.version, build.torch) == (distribution, version, '2.5.1+cpu')
    assert f'{distribution}=={version}' in build.requirements.read_text()
    assert build_for({engine: '0.10.7', 'torch': '2.5.1+cpu'}, version) == build


def test_another_version_is_taken_by_its_name():
    build = build_for({'mmengine': '0.10.7', 'torch': '2.4.1'}, '2.2.0')
    assert build.version == '2.2.0' and build.requirements is None


@pytest.mark.parametrize(
    ('installed', 'words'),
    [
        ({'torch': '2.4.1'}, 'neither is'),
        ({'torch': '2.4.1', 'mmengine': '1', 'onedl-mmengine': '1'}, 'both are'),
        ({'mmengine': '0.10.7'}, 'PyTorch has to be installed first'),
    ],
)
def test_what_has_to_be_there_first(installed, words):
    with pytest.raises(MissingError, match=words):
        build_for(installed)


@pytest.mark.parametrize(
    ('missing', 'words'),
    [
        ('setuptools', 'pip install "setuptools<82"$'),
        ('ninja', 'pip install ninja$'),
        ('pip', 'python -m ensurepip'),
    ],
)
def test_what_compiling_needs(monkeypatch, missing, words):
    monkeypatch.setattr(install_mmcv, 'find_spec', lambda name: None if name == missing else name)
    with pytest.raises(MissingError, match=words):
        check_environment()


def test_mmcv_lite_is_in_the_way(monkeypatch):
    lite = {'mmcv-lite': '2.1.0'}
    monkeypatch.setattr(install_mmcv, 'find_spec', lambda name: name)
    monkeypatch.setattr(install_mmcv, 'installed_version', lite.get)
    with pytest.raises(MissingError, match='pip uninstall mmcv-lite'):
        check_environment()


@pytest.fixture
def command(monkeypatch, tmp_path):
    """Installed packages and commands to record, with a build that is done at once."""
    calls = []
    packages = {'torch': '2.4.1', 'mmengine': '0.10.7'}
    monkeypatch.setenv('MMDLA_CUDA', '')
    monkeypatch.setattr(install_mmcv, 'installed_version', packages.get)
    monkeypatch.setattr(install_mmcv, 'check_environment', lambda: None)
    monkeypatch.setattr(install_mmcv.subprocess, 'call', lambda c: calls.append(c) or 0)

    def get(build, python):
        calls.append((build.distribution, python, os.environ['MMDLA_CUDA']))
        return tmp_path / 'mmcv.whl'

    monkeypatch.setattr(install_mmcv.mmcv_wheel, 'get', get)
    return calls


@pytest.mark.parametrize('cuda', [False, True])
def test_compiles_for_this_python_and_installs_without_dependencies(command, cuda, tmp_path):
    assert install_mmcv.main(['--cuda'] if cuda else []) == 0
    assert command[0] == ('mmcv', Path(sys.executable), '1' if cuda else '')
    assert command[1][:4] == [sys.executable, '-m', 'pip', 'install']
    assert '--no-deps' in command[1] and command[1][-1] == str(tmp_path / 'mmcv.whl')


def test_a_failed_build_installs_nothing(command, monkeypatch, capsys):
    def fail(*_):
        raise install_mmcv.mmcv_wheel.BuildError('no compiler')

    monkeypatch.setattr(install_mmcv.mmcv_wheel, 'get', fail)
    assert install_mmcv.main([]) == 2
    assert 'error: no compiler' in capsys.readouterr().err and not command
