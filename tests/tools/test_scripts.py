"""The shell scripts start the tools with the right options."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

RECORDER = '#!/bin/bash\nprintf "%s\\n" "$@"\n'


@pytest.fixture
def script(repo, tmp_path):
    """Run a script of ``tools/`` with stand-ins for python and srun that print what they get."""
    for name in ('python', 'srun'):
        path = tmp_path / name
        path.write_text(RECORDER)
        path.chmod(path.stat().st_mode | stat.S_IEXEC)

    def run(name: str, *argv: str, **env: str) -> subprocess.CompletedProcess:
        kept = {k: v for k, v in os.environ.items() if k in ('HOME', 'LANG')}
        path = f'{tmp_path}:{os.environ["PATH"]}'
        return subprocess.run(
            [repo / 'tools' / name, *argv],
            env={**kept, 'PATH': path, **env},
            capture_output=True,
            check=False,
            text=True,
        )

    return run


def test_dist_train(script, repo):
    lines = script('dist_train.sh', 'a config.py', '4', '--amp', '--cfg-options', 'a="b c"')
    assert lines.stdout.splitlines() == [
        str(repo / 'tools/launch.py'),
        '--standalone',
        '--local_addr=127.0.0.1',
        '--nproc_per_node=4',
        str(repo / 'tools/train.py'),
        'a config.py',
        '--amp',
        '--cfg-options',
        'a="b c"',
        '--launcher',
        'pytorch',
    ]


def test_dist_train_at_a_port(script):
    env = dict(PORT='1234', TORCHRUN_ARGS='--max-restarts 3')
    lines = script('dist_train.sh', 'c.py', '2', **env).stdout.splitlines()
    assert lines[1:8] == [
        '--nnodes=1',
        '--node_rank=0',
        '--master_addr=127.0.0.1',
        '--master_port=1234',
        '--nproc_per_node=2',
        '--max-restarts',
        '3',
    ]


def test_dist_test_on_two_machines(script, repo):
    env = dict(NNODES='2', NODE_RANK='1', MASTER_ADDR='10.0.0.1')
    lines = script('dist_test.sh', 'c.py', 'e.pth', '8', '--tta', **env).stdout.splitlines()
    assert {'--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=29500'} < {
        *lines
    }
    tail = ['c.py', 'e.pth', '--tta', '--launcher', 'pytorch']
    assert lines[-6:] == [str(repo / 'tools/test.py'), *tail]


def test_slurm_train(script, repo):
    env = dict(GPUS='16', CPUS_PER_TASK='3', SRUN_ARGS='--qos high')
    lines = script('slurm_train.sh', 'part', 'job', 'c.py', '--resume', **env).stdout.splitlines()
    assert lines == [
        '-p',
        'part',
        '--job-name=job',
        '--gres=gpu:8',
        '--ntasks=16',
        '--ntasks-per-node=8',
        '--cpus-per-task=3',
        '--kill-on-bad-exit=1',
        '--qos',
        'high',
        'python',
        '-u',
        str(repo / 'tools/train.py'),
        'c.py',
        '--resume',
        '--launcher',
        'slurm',
    ]


def test_slurm_train_takes_the_work_dir_as_the_hosts_script(script):
    lines = script('slurm_train.sh', 'part', 'job', 'c.py', 'out', '--amp').stdout.splitlines()
    assert lines[-6:-2] == ['c.py', '--work-dir', 'out', '--amp']


def test_slurm_test_with_one_gpu(script):
    lines = script('slurm_test.sh', 'part', 'job', 'c.py', 'e.pth', GPUS='1').stdout.splitlines()
    assert {'--gres=gpu:1', '--ntasks=1', '--ntasks-per-node=1'} < {*lines}
    assert lines[-4:] == ['c.py', 'e.pth', '--launcher', 'slurm']


def test_slurm_without_gpus(script):
    lines = script('slurm_test.sh', 'part', 'job', 'c.py', 'e.pth', GRES='').stdout.splitlines()
    assert not [line for line in lines if line.startswith('--gres')]


def test_slurm_jobs_meet_at_a_port(script, tmp_path):
    (tmp_path / 'srun').write_text('#!/bin/bash\necho "$MASTER_PORT"\n')
    argv = ('slurm_train.sh', 'part', 'job', 'c.py')
    assert script(*argv, PORT='1234').stdout == '1234\n'
    ports = {int(script(*argv).stdout) for _ in range(5)}
    assert len(ports) > 1
    assert all(20000 <= port < 30000 for port in ports)


@pytest.mark.parametrize(
    'name', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh']
)
def test_usage(script, name):
    result = script(name, 'one')
    assert result.returncode == 2
    assert f'tools/{name}' in result.stderr
    assert result.stdout == ''


def test_no_complaint_of_shellcheck(repo):
    scripts = [*repo.glob('tools/*.sh'), repo / '.ci/run', *repo.glob('tests/integration/slurm/*')]
    command = [Path(sys.executable).parent / 'shellcheck', '--external-sources', '-P', 'tools']
    result = subprocess.run([*command, *scripts], cwd=repo, capture_output=True, check=False)
    assert result.returncode == 0, result.stdout.decode()


def test_slurm_train_without_slurm(script, tmp_path):
    (tmp_path / 'srun').unlink()
    for name in ('bash', 'dirname'):
        (tmp_path / name).symlink_to(shutil.which(name))
    result = script('slurm_train.sh', 'part', 'job', 'c.py', PATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith('error: srun is not found')
    assert not result.stdout
