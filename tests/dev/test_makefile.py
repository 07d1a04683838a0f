"""What ``make`` would run."""

import subprocess

import pytest
from test_mmcv_wheel import ROOT

SETUP = 'dev/setup/bootstrap.py'


def lines(target):
    command = ['make', '--dry-run', '--no-print-directory', 'PYTHON=python3', target]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


@pytest.mark.parametrize(
    ('target', 'wanted'),
    [
        ('demo', [SETUP, 'projects/demo/run.py']),
        (
            'test',
            [SETUP, 'ruff check', 'ruff format --check', 'mypy', '.venv/bin/python -m pytest'],
        ),
        ('test-openmmlab', [f'{SETUP} openmmlab', '.venv-openmmlab/bin/python -m pytest']),
    ],
)
def test_each_target_sets_up_what_it_needs_first(target, wanted):
    got = lines(target)
    assert len(got) == len(wanted)
    assert all(part in line for part, line in zip(wanted, got, strict=True))


def test_upstream_stack_is_no_part_of_make_test():
    assert not any('openmmlab' in line for line in lines('test'))


def test_clean_keeps_the_compiled_mmcv():
    (line,) = lines('clean')
    assert line == 'rm -rf .venv .venv-openmmlab .venv-maintain .venv-docs work_dirs site'


@pytest.mark.parametrize(
    ('target', 'wanted', 'lock'),
    [
        ('lock', '.venv-maintain/bin/python dev/setup/lock.py', 'maintain'),
        ('audit', '.venv-maintain/bin/python dev/setup/audit.py', 'maintain'),
        ('docs', '.venv-docs/bin/mkdocs build --strict', 'docs'),
    ],
)
def test_other_environments_are_made_from_their_locks(target, wanted, lock):
    result = lines(target)
    assert wanted in result[-1]
    made = [line for line in result[:-1] if 'pip install' in line]
    assert all(f'--require-hashes -r requirements/{lock}.txt' in line for line in made)
