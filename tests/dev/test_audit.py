"""What the audit of the locks says and when it fails."""

import pytest
from test_mmcv_wheel import load

audit = load('audit')
VULNERABILITY = dict(id='PYSEC-2099-1', fix_versions=['2.0'], aliases=[], description='')


def report(*packages):
    return dict(dependencies=list(packages), fixes=[])


def package(name='numpy', vulns=()):
    return dict(name=name, version='1.0', vulns=list(vulns))


@pytest.fixture
def reply(tmp_path, monkeypatch):
    """Let a script stand in for pip-audit; its replies do not depend on the lock."""

    def set_reply(script):
        program = tmp_path / 'pip-audit'
        program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/arguments\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setattr(audit, 'PIP_AUDIT', program)
        return tmp_path / 'arguments'

    return set_reply


@pytest.mark.parametrize(
    ('packages', 'safe', 'words'),
    [
        ([package()], True, '1 of 1 packages looked up'),
        (
            [package(), package('torch', [VULNERABILITY])],
            False,
            'torch 1.0: PYSEC-2099-1, fixed in 2.0',
        ),
        ([package(vulns=[VULNERABILITY | dict(fix_versions=[])])], False, 'fixed in no version'),
        ([package(), dict(name='six', skip_reason='not found')], False, 'no answer about six'),
        ([], False, '0 of 0'),
    ],
)
def test_summary(packages, safe, words):
    lines, is_safe = audit.summarise(report(*packages))
    assert is_safe is safe and words in '\n'.join(lines)


def test_every_lock_is_looked_up_by_its_hashes(reply, capsys):
    arguments = reply("""echo '{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}'""")
    assert audit.main([]) == 0
    lines = arguments.read_text().splitlines()
    assert len(lines) == len(audit.LOCKS)
    for line, made in zip(lines, audit.LOCKS, strict=True):
        assert '--require-hashes --disable-pip' in line and line.endswith(f'/{made.name}.txt')
    assert 'onedl: 1 of 1 packages looked up' in capsys.readouterr().out


def test_no_answer_is_a_failure(reply, capsys):
    reply("""echo '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'""")
    assert audit.main([]) == 1
    assert 'no answer about a' in capsys.readouterr().out


def test_no_service_is_a_failure(reply, capsys):
    reply('echo "Connection refused" >&2; exit 1')
    assert audit.main([]) == 1
    assert 'the audit did not run:\nConnection refused' in capsys.readouterr().err
