"""When the set-up works, when it reuses, and what it says when it cannot."""

import re
import shutil
import sys

import pytest
from test_mmcv_wheel import load

bootstrap = load('bootstrap')


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with a finished environment."""
    venv = tmp_path / '.venv'
    (venv / 'bin').mkdir(parents=True)
    (venv / 'bin' / 'python').symlink_to(sys.executable)
    for name, path in dict(
        ROOT=tmp_path, VENV=venv, PYTHON=venv / 'bin' / 'python', STAMP=venv / 'mmdla-ready'
    ).items():
        monkeypatch.setattr(bootstrap, name, path)
    (tmp_path / 'setup.py').touch()
    bootstrap.write_stamp()
    return tmp_path


def test_finished_set_up_is_reused(clone, monkeypatch):
    monkeypatch.setattr(bootstrap, 'prepare', lambda: pytest.fail('prepared again'))
    assert bootstrap.main() == 0


@pytest.mark.parametrize('change', ['no stamp', 'other pins', 'no python'])
def test_set_up_is_done_again(clone, monkeypatch, change):
    if change == 'no stamp':
        bootstrap.STAMP.unlink()
    elif change == 'other pins':
        requirements = clone / 'requirements'
        shutil.copytree(bootstrap.REQUIREMENTS, requirements)
        (requirements / 'onedl.txt').write_text('torch==9.9.9')
        monkeypatch.setattr(bootstrap, 'REQUIREMENTS', requirements)
    else:
        bootstrap.PYTHON.unlink()
    done = []
    monkeypatch.setattr(bootstrap, 'prepare', lambda: done.append(1))
    assert bootstrap.main() == 0 and done


def test_ruins_of_an_interrupted_set_up_are_removed(clone, monkeypatch):
    bootstrap.STAMP.unlink()
    ruin = bootstrap.VENV / 'half-installed'
    ruin.touch()

    class StopError(Exception):
        pass

    def stop():
        raise StopError

    monkeypatch.setattr(bootstrap, 'check_system', lambda: None)
    monkeypatch.setattr(bootstrap, 'make_venv', stop)
    with pytest.raises(StopError):
        bootstrap.prepare()
    assert not ruin.exists()


@pytest.mark.parametrize(
    ('missing', 'words'), [('compiler', r'apt-get install g\+\+'), ('disk', 'GB of free disk')]
)
def test_what_is_missing_is_named(clone, monkeypatch, capsys, missing, words):
    bootstrap.STAMP.unlink()
    monkeypatch.setenv('MMDLA_CACHE', str(clone / 'empty'))
    if missing == 'compiler':
        which = shutil.which
        compilers = ('c++', 'g++', 'clang++')
        monkeypatch.setattr(
            bootstrap.shutil, 'which', lambda n: None if n in compilers else which(n)
        )
    else:
        shutil.rmtree(bootstrap.VENV)
        monkeypatch.setattr(bootstrap, 'NEEDED_DISK', 2**70)
    assert bootstrap.main() == 1
    error = capsys.readouterr().err
    assert re.search(words, error)
