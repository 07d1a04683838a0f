"""When the set-up works, when it reuses, and what it says when it cannot."""

import re
import shutil
import sys

import pytest
from test_mmcv_wheel import load

bootstrap = load('bootstrap')
LAST = len(bootstrap.STEPS)


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone with a finished environment, whose steps are recorded instead of done."""
    venv = tmp_path / '.venv'
    (venv / 'bin').mkdir(parents=True)
    (venv / 'bin' / 'python').symlink_to(sys.executable)
    for name, path in dict(
        ROOT=tmp_path, VENV=venv, PYTHON=venv / 'bin' / 'python', STATE=venv / 'mmdla-state'
    ).items():
        monkeypatch.setattr(bootstrap, name, path)
    monkeypatch.setattr(bootstrap, 'check_system', lambda: None)
    bootstrap.write_state(LAST)
    return tmp_path


@pytest.fixture
def done(clone, monkeypatch):
    """The numbers of the steps that a set-up does."""
    numbers = []
    steps = [
        step._replace(action=lambda n=number: numbers.append(n))
        for number, step in enumerate(bootstrap.STEPS, 1)
    ]
    monkeypatch.setattr(bootstrap, 'STEPS', steps)
    return numbers


def interrupt(monkeypatch, number, error):
    """Let step ``number`` end with ``error``."""

    def stop():
        raise error

    steps = list(bootstrap.STEPS)
    steps[number - 1] = steps[number - 1]._replace(action=stop)
    monkeypatch.setattr(bootstrap, 'STEPS', steps)


def test_finished_set_up_is_reused(done):
    assert bootstrap.main() == 0
    assert not done


@pytest.mark.parametrize('change', ['no state', 'torn state', 'other pins', 'no python', 'CUDA'])
def test_everything_is_done_again(clone, done, monkeypatch, change):
    if change == 'no state':
        bootstrap.STATE.unlink()
    elif change == 'torn state':
        bootstrap.STATE.write_text(bootstrap.fingerprint())
    elif change == 'other pins':
        requirements = clone / 'requirements'
        shutil.copytree(bootstrap.REQUIREMENTS, requirements)
        (requirements / 'onedl.txt').write_text('torch==9.9.9')
        monkeypatch.setattr(bootstrap, 'REQUIREMENTS', requirements)
    elif change == 'no python':
        bootstrap.PYTHON.unlink()
        bootstrap.STATE.parent.joinpath('bin', 'python3').symlink_to('/nowhere')
    else:
        monkeypatch.setenv('MMDLA_CUDA', '1')
    assert bootstrap.main() in (0, 1)
    assert done[:3] == [1, 2, 3]


def test_killed_while_installing_starts_anew(done, monkeypatch):
    """Packages may be half there."""
    bootstrap.write_state(1)
    steps = bootstrap.STEPS
    interrupt(monkeypatch, 2, KeyboardInterrupt())
    assert bootstrap.main() == bootstrap.INTERRUPTED
    monkeypatch.setattr(bootstrap, 'STEPS', steps)
    assert bootstrap.main() == 0
    assert done == [1, 2, 3, 4, 5, 6]


def test_killed_while_compiling_goes_on_there(done, monkeypatch):
    bootstrap.write_state(2)
    steps = bootstrap.STEPS
    interrupt(monkeypatch, 3, KeyboardInterrupt())
    assert bootstrap.main() == bootstrap.INTERRUPTED
    monkeypatch.setattr(bootstrap, 'STEPS', steps)
    assert bootstrap.main() == 0
    assert done == [3, 4, 5, 6]


def test_failed_step_is_named_and_earlier_ones_kept(done, monkeypatch, capsys):
    bootstrap.write_state(1)
    interrupt(monkeypatch, 2, bootstrap.SetupError('no network'))
    assert bootstrap.main() == 1
    assert re.search(r'step 2, PyTorch.*no network', capsys.readouterr().err)
    assert bootstrap.finished_steps() == 1


def test_ruins_of_an_interrupted_set_up_are_removed(clone, monkeypatch):
    ruin = bootstrap.VENV / 'half-installed'
    ruin.touch()
    monkeypatch.setattr(bootstrap, 'run', lambda *args: None)
    bootstrap.make_venv()
    assert not ruin.exists()


@pytest.mark.parametrize('ensurepip', [True, False])
def test_pip_comes_from_the_system_where_ensurepip_is_missing(clone, monkeypatch, ensurepip):
    commands = []
    monkeypatch.setattr(bootstrap, 'works', lambda code: ensurepip or 'ensurepip' not in code)
    monkeypatch.setattr(bootstrap, 'run', lambda command, *_: commands.append(' '.join(command)))
    bootstrap.make_venv()
    assert ('--without-pip' in commands[0]) is not ensurepip
    assert any('pip --python' in command for command in commands) is not ensurepip


def test_python_without_any_pip_is_named(clone, monkeypatch):
    monkeypatch.setattr(bootstrap, 'works', lambda code: False)
    with pytest.raises(bootstrap.SetupError, match='apt-get install python3-pip'):
        bootstrap.make_venv()


@pytest.mark.parametrize(
    ('missing', 'words'),
    [
        ('compiler', r'apt-get install g\+\+'),
        ('headers', 'apt-get install python3-dev'),
        ('disk', 'GB of free disk'),
    ],
)
def test_what_is_missing_is_named(clone, monkeypatch, capsys, missing, words):
    monkeypatch.undo()
    monkeypatch.setattr(bootstrap, 'ROOT', clone)
    monkeypatch.setattr(bootstrap, 'VENV', clone / 'none')
    monkeypatch.setattr(bootstrap, 'STATE', clone / 'none' / 'state')
    monkeypatch.setenv('MMDLA_CACHE', str(clone / 'empty'))
    monkeypatch.setattr(bootstrap, 'NEEDED_DISK', 2**70 if missing == 'disk' else 0)
    monkeypatch.setattr(
        bootstrap.shutil, 'which', lambda name: None if missing == 'compiler' else name
    )
    monkeypatch.setattr(bootstrap.sysconfig, 'get_paths', lambda: {'include': str(clone)})
    assert bootstrap.main() == 1
    assert re.search(words, capsys.readouterr().err)
    assert not (clone / 'none').exists()
