"""When the set-up works, when it reuses, and what it says when it cannot."""

import re
import shutil
import sys

import pytest
from test_mmcv_wheel import load

bootstrap = load('bootstrap')
stacks = sys.modules['stacks']
LAST = len(bootstrap.STEPS)


@pytest.fixture(params=stacks.STACKS.values(), ids=stacks.STACKS)
def setup(request, tmp_path, monkeypatch):
    """The set-up of a clone with a finished environment."""
    setup = bootstrap.SetUp(request.param, tmp_path)
    setup.python.parent.mkdir(parents=True)
    setup.python.symlink_to(sys.executable)
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    monkeypatch.setattr(bootstrap, 'SetUp', lambda stack: {request.param: setup}[stack])
    monkeypatch.setattr(setup, 'check_system', lambda: None)
    setup.write_state(LAST)
    return setup


@pytest.fixture
def main(setup):
    """Set up this stack."""
    return lambda: bootstrap.main([setup.stack.name])


@pytest.fixture
def done(setup, monkeypatch):
    """The numbers of the steps that a set-up does; they are recorded instead of done."""
    numbers = []
    steps = [
        step._replace(action=lambda _, n=number: numbers.append(n))
        for number, step in enumerate(bootstrap.STEPS, 1)
    ]
    monkeypatch.setattr(bootstrap, 'STEPS', steps)
    return numbers


@pytest.fixture
def commands(setup, monkeypatch):
    """The command lines that the set-up runs; they are recorded instead of run."""
    lines = []
    monkeypatch.setattr(setup, 'run', lambda command, *_: lines.append(' '.join(command)))
    return lines


def interrupt(monkeypatch, number, error):
    """Let step ``number`` end with ``error``."""

    def stop(_):
        raise error

    steps = list(bootstrap.STEPS)
    steps[number - 1] = steps[number - 1]._replace(action=stop)
    monkeypatch.setattr(bootstrap, 'STEPS', steps)


def test_finished_set_up_is_reused(main, done):
    assert main() == 0
    assert not done


@pytest.mark.parametrize('change', ['no state', 'torn state', 'other pins', 'no python', 'CUDA'])
def test_everything_is_done_again(setup, main, done, tmp_path, monkeypatch, change):
    if change == 'no state':
        setup.state.unlink()
    elif change == 'torn state':
        setup.state.write_text(setup.fingerprint())
    elif change == 'other pins':
        requirements = tmp_path / 'requirements'
        shutil.copytree(stacks.REQUIREMENTS, requirements)
        with setup.stack.lock('mm').open() as lock:
            (requirements / setup.stack.lock('mm').name).write_text(lock.read() + '\n')
        monkeypatch.setattr(stacks, 'REQUIREMENTS', requirements)
    elif change == 'no python':
        setup.python.unlink()
        setup.python.with_name('python3').symlink_to('/nowhere')
    else:
        monkeypatch.setenv('MMDLA_CUDA', '1')
    assert main() == 0
    assert done[:3] == [1, 2, 3]


def test_pins_of_the_other_stack_do_not_matter(setup, main, done, tmp_path, monkeypatch):
    requirements = tmp_path / 'requirements'
    shutil.copytree(stacks.REQUIREMENTS, requirements)
    monkeypatch.setattr(stacks, 'REQUIREMENTS', requirements)
    for other in stacks.STACKS.values():
        if other != setup.stack:
            other.lock().write_text('torch==9.9.9')
    assert main() == 0
    assert not done


def test_killed_while_installing_starts_anew(setup, main, done, monkeypatch):
    """Packages may be half there."""
    setup.write_state(1)
    steps = bootstrap.STEPS
    interrupt(monkeypatch, 2, KeyboardInterrupt())
    assert main() == bootstrap.INTERRUPTED
    monkeypatch.setattr(bootstrap, 'STEPS', steps)
    assert main() == 0
    assert done == [1, 2, 3, 4, 5, 6]


def test_killed_while_compiling_goes_on_there(setup, main, done, monkeypatch):
    setup.write_state(2)
    steps = bootstrap.STEPS
    interrupt(monkeypatch, 3, KeyboardInterrupt())
    assert main() == bootstrap.INTERRUPTED
    monkeypatch.setattr(bootstrap, 'STEPS', steps)
    assert main() == 0
    assert done == [3, 4, 5, 6]


def test_failed_step_is_named_and_earlier_ones_kept(setup, main, done, monkeypatch, capsys):
    setup.write_state(1)
    interrupt(monkeypatch, 2, bootstrap.SetupError('no network'))
    assert main() == 1
    assert re.search(r'step 2, PyTorch.*no network', capsys.readouterr().err)
    assert setup.finished_steps() == 1


def test_ruins_of_an_interrupted_set_up_are_removed(setup, commands):
    ruin = setup.venv / 'half-installed'
    ruin.touch()
    setup.make_venv()
    assert not ruin.exists()


@pytest.mark.parametrize('ensurepip', [True, False])
def test_pip_comes_from_the_system_where_ensurepip_is_missing(
    setup, commands, monkeypatch, ensurepip
):
    monkeypatch.setattr(bootstrap, 'works', lambda code: ensurepip or 'ensurepip' not in code)
    setup.make_venv()
    assert ('--without-pip' in commands[0]) is not ensurepip
    assert any('pip --python' in command for command in commands) is not ensurepip


def test_python_without_any_pip_is_named(setup, monkeypatch):
    monkeypatch.setattr(bootstrap, 'works', lambda code: False)
    with pytest.raises(bootstrap.SetupError, match='apt-get install python3-pip'):
        setup.make_venv()


def test_whatever_is_downloaded_is_checked_by_its_hash(setup, commands, monkeypatch, tmp_path):
    """What needs no hash is what was built here: mmcv's wheel and mmdla itself."""
    wheel = tmp_path / 'mmcv.whl'
    monkeypatch.setattr(bootstrap.mmcv_wheel, 'get', lambda *_: wheel)
    monkeypatch.setattr(bootstrap, 'works', lambda code: 'ensurepip' not in code)
    for step in bootstrap.STEPS:
        step.action(setup)
    installs = [command for command in commands if ' install ' in command]
    built_here = [line for line in installs if '--require-hashes' not in line]
    assert len(installs) == len(built_here) + 4
    assert [line.split()[-1] for line in built_here] == [str(wheel), str(tmp_path)]
    assert all('--no-deps' in line for line in built_here)


@pytest.mark.parametrize(
    ('missing', 'words'),
    [
        ('compiler', r'apt-get install g\+\+'),
        ('headers', 'apt-get install python3-dev'),
        ('disk', 'GB of free disk'),
        ('old Python', r'Python 3\.10 to 3\.1\d is needed, this is 3\.9\.1'),
        ('new Python', r'Python 3\.10 to 3\.1\d is needed, this is 3\.14\.1'),
        ('Linux', 'pinned for Linux, this is darwin'),
    ],
)
def test_what_is_missing_is_named(setup, main, monkeypatch, capsys, tmp_path, missing, words):
    shutil.rmtree(setup.venv)
    monkeypatch.undo()
    monkeypatch.setattr(bootstrap, 'ROOT', tmp_path)
    monkeypatch.setattr(bootstrap, 'SetUp', lambda stack: setup)
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path / 'empty'))
    monkeypatch.setattr(bootstrap, 'NEEDED_DISK', 2**70 if missing == 'disk' else 0)
    monkeypatch.setattr(
        bootstrap.shutil, 'which', lambda name: None if missing == 'compiler' else name
    )
    monkeypatch.setattr(bootstrap.sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    if missing.endswith('Python'):
        python = (3, 9, 1) if missing == 'old Python' else (3, 14, 1)
        monkeypatch.setattr(bootstrap.sys, 'version_info', python)
        monkeypatch.setattr(bootstrap.sys, 'version', '.'.join(map(str, python)))
    elif missing == 'Linux':
        monkeypatch.setattr(bootstrap.sys, 'platform', 'darwin')
    assert main() == 1
    assert re.search(words, capsys.readouterr().err)
    assert not setup.venv.exists()


@pytest.mark.parametrize('argv', [['numpy'], ['onedl', 'openmmlab']])
def test_unknown_stacks_are_refused(argv, capsys):
    assert bootstrap.main(argv) == 2
    assert 'usage: bootstrap.py [onedl|openmmlab]' in capsys.readouterr().err
