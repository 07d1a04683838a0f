"""What the set-ups install is pinned with hashes, and agrees with what is asked for."""

import re
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from test_mmcv_wheel import load

lock = load('lock')
stacks = sys.modules['stacks']
NAMES = [made.name for made in lock.LOCKS]
PYTHONS = ['3.10', '3.11', '3.12', '3.13']


def asked_for(name):
    """The requirements of ``NAME.in``."""
    lines = (stacks.REQUIREMENTS / f'{name}.in').read_text().splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(('#', '-'))]


def locked(name):
    """Requirements of ``NAME.txt`` with the number of their hashes."""
    text = stacks.lock(name).read_text().replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line and not line.startswith('#')]
    parts = [re.split(r'\s+--hash=sha256:', line) for line in lines]
    assert all(re.fullmatch('[0-9a-f]{64}', digest.strip()) for _, *ds in parts for digest in ds)
    return [(Requirement(head), len(digests)) for head, *digests in parts]


def environment(python):
    return dict(
        python_version=python, python_full_version=f'{python}.5', sys_platform='linux',
        platform_system='Linux', platform_machine='x86_64',
    )  # fmt: skip


def versions(requirements, python):
    """Pinned versions by name, on one version of Python."""
    here = [r for r in requirements if not r.marker or r.marker.evaluate(environment(python))]
    found = {canonicalize_name(r.name): str(r.specifier) for r in here}
    assert len(found) == len(here), 'pinned twice'
    return found


def test_every_lock_is_made_and_every_stack_has_its_own():
    on_disk = {path.stem for path in stacks.REQUIREMENTS.glob('*.txt')}
    assert set(NAMES) == on_disk
    for stack in stacks.STACKS.values():
        assert {stack.lock(part).stem for part in ('', 'mm', 'mmcv')} <= on_disk


@pytest.mark.parametrize('name', NAMES)
def test_every_package_is_pinned_with_hashes(name):
    requirements = locked(name)
    assert requirements
    for requirement, hashes in requirements:
        assert re.fullmatch(r'==[\w.+!]+', str(requirement.specifier)), requirement
        assert hashes and not requirement.url and not requirement.extras, requirement


@pytest.mark.parametrize('name', NAMES)
def test_no_index_is_named(name):
    text = stacks.lock(name).read_text()
    assert '://' not in text and not re.search(r'^-', text, re.M)


@pytest.mark.parametrize('made', lock.LOCKS, ids=NAMES)
def test_locks_are_up_to_date(made):
    """For every Python of the stack: a version that is asked for is the one that is locked."""
    requirements = [requirement for requirement, _ in locked(made.name)]
    first, last = made.pythons
    for python in PYTHONS:
        if not first <= tuple(map(int, python.split('.'))) <= last:
            assert not versions(requirements, python), f'nothing may be installed on {python}'
            continue
        pinned = versions(requirements, python)
        for name in made.sources:
            for wanted in asked_for(name):
                if wanted.marker and not wanted.marker.evaluate(environment(python)):
                    continue
                found = pinned.get(canonicalize_name(wanted.name), '==').removeprefix('==')
                assert found and found in wanted.specifier, f'{wanted}: run `make lock`'


def test_all_wheels_of_a_version_are_named():
    """So that other Pythons than that of who made the lock get theirs: torch has a wheel for each."""
    (hashes,) = (n for requirement, n in locked('onedl') if requirement.name == 'torch')
    assert hashes >= len(PYTHONS)


def test_resolves_for_linux_and_the_pythons_of_the_stack():
    made = next(made for made in lock.LOCKS if made.name == 'openmmlab')
    project = lock.project(made)
    assert "python_version >= '3.10' and python_version < '3.13'" in project
    assert "sys_platform == 'linux'" in project
    command = lock.command(made, 'FOLDER')
    assert Path(command[0]).name == 'uv' and '--generate-hashes' in command
    assert command[-4:] == ['build.in', 'openmmlab.in', '-o', 'openmmlab.txt']


def test_what_is_compiled_is_installed_without_its_dependencies():
    """They name opencv-python, which writes over the headless one."""
    for made in lock.LOCKS:
        assert ('--no-deps' in lock.command(made, '')) == made.name.endswith(('-mm', '-mmcv'))
        names = {canonicalize_name(requirement.name) for requirement, _ in locked(made.name)}
        assert 'opencv-python' not in names
