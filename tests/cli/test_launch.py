"""``tools/launch.py``: what it says when a job fails."""

import os
import socket
import sys
import textwrap
import time

import pytest
from torch.distributed.elastic import multiprocessing
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from mmdla.cli import launch


def failure(exitcode: int, second: int) -> ProcessFailure:
    result = ProcessFailure(local_rank=1, pid=77, exitcode=exitcode, error_file='<N/A>')
    result.timestamp = second
    return result


@pytest.mark.parametrize(
    'failures, first',
    [
        ({0: (1, 5), 3: (1, 4)}, 3),
        ({0: (1, 5), 3: (-9, 5)}, 3),
        ({0: (1, 4), 3: (-11, 5)}, 3),
        ({0: (-15, 5), 3: (2, 5)}, 3),
        ({0: (-15, 4), 3: (-9, 5)}, 3),
        ({3: (-15, 4)}, 3),
    ],
)
def test_which_process_failed_first(failures, first):
    described = {rank: failure(*args) for rank, args in failures.items()}
    assert launch.first_failure(described)[0] == first


def test_a_process_that_torchrun_had_to_kill_was_not_the_first():
    described = {0: failure(1, 5), 3: failure(-9, 5)}
    described[3].pid = 78
    assert launch.first_failure(described, {78})[0] == 0
    message = launch.describe_unresponsive(described, {78})
    assert 'Rank 3 (local rank 1, process 78)' in message and 'hung' in message
    assert launch.describe_unresponsive(described, set()) == ''


def test_processes_that_do_not_end_are_noticed(tmp_path):
    """By what torchrun's own class says when it has waited."""
    code = 'import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '
    code += f'pathlib.Path({str(tmp_path)!r}, "ready").touch(); time.sleep(600)'
    context = multiprocessing.start_processes(
        name='hangs',
        entrypoint=sys.executable,
        args={0: ('-c', code)},
        envs={0: dict(os.environ)},
        logs_specs=multiprocessing.DefaultLogsSpecs(str(tmp_path)),
    )
    while not (tmp_path / 'ready').exists():
        time.sleep(0.01)
    with launch.watch_unresponsive() as pids:
        context.close(timeout=0.1)
    assert pids == set(context.pids().values())


@pytest.mark.parametrize(
    'exitcode, code, says, resume',
    [
        (-9, 137, 'rank 3 (local rank 1, process 77) was killed by SIGKILL', True),
        (-11, 139, 'was killed by SIGSEGV', True),
        (1, 1, 'failed with exit code 1', True),
        (2, 2, 'failed with exit code 2', False),
    ],
)
def test_what_is_said(exitcode, code, says, resume):
    message, status = launch.describe(3, failure(exitcode, 0), '/somewhere/tools/train.py')
    assert status == code
    assert says in message
    assert ('--resume' in message) == resume
    assert '--resume' not in launch.describe(3, failure(exitcode, 0), 'tools/test.py')[0]


def test_cores_are_shared(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('os.sched_getaffinity', lambda pid: set(range(7)), raising=False)
    for processes, threads in (('3', '2'), ('9', '1')):
        monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
        launch.share_cores(processes)
        assert os.environ['OMP_NUM_THREADS'] == threads
    monkeypatch.setenv('OMP_NUM_THREADS', '5')
    launch.share_cores('3')
    assert os.environ['OMP_NUM_THREADS'] == '5'
    monkeypatch.delenv('OMP_NUM_THREADS')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    launch.share_cores('3')
    assert 'OMP_NUM_THREADS' not in os.environ


def test_port_in_use(capfd, tmp_path):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        s.listen()
        port = s.getsockname()[1]
        options = [f'--master_port={port}', '--master_addr=127.0.0.1', '--nproc_per_node=1']
        assert launch.main([*options, 'never_started.py']) == 1
    assert f'port {port} is in use' in capfd.readouterr().err


def test_machine_that_never_comes(capfd):
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    options = [f'--master_port={port}', '--nnodes=2', '--node_rank=0', '--rdzv-conf=timeout=1']
    assert launch.main([*options, 'never_started.py']) == 1
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith('error: the 2 machines of the job did not find each other: Timed out')


def test_real_processes(capfd, tmp_path):
    """One dies by a signal while the other waits for it, and would for ten minutes."""
    script = tmp_path / 'script.py'
    script.write_text(
        textwrap.dedent("""\
        import os, signal, sys, time
        if os.environ['RANK'] == '1':
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))
        time.sleep(600)
        """)
    )
    here = ['--standalone', '--local_addr=127.0.0.1', '--nproc_per_node=2']
    assert launch.main([*here, str(script), 'SIGSEGV']) == 139
    message = capfd.readouterr().err.splitlines()[-1]
    assert message.startswith('error: rank 1 (local rank 1, process ')
    assert 'SIGSEGV' in message
    script.write_text('import sys; sys.exit(0)')
    assert launch.main([*here, str(script)]) == 0
