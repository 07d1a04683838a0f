"""A NaN in one of two processes stops both, and both know where it was."""

import os
import socket
import subprocess
import sys
from pathlib import Path


def test_both_stop(repo, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name('finite_loss_process.py')
    environment = {
        **os.environ,
        'PYTHONPATH': os.pathsep.join([str(repo), str(repo / 'tests')]),
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(port),
        'WORLD_SIZE': '2',
        'OMP_NUM_THREADS': '1',
    }
    processes = [
        subprocess.Popen(
            [sys.executable, script, tmp_path],
            env={**environment, 'RANK': str(rank), 'LOCAL_RANK': str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=100)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [2, 2]
    for error in errors:
        message = error[error.index('error') :]  # "error:" or "error (rank 1):"
        assert 'iteration 3 (epoch 2)' in message
        assert 'process 1: the loss is not finite (loss_square: nan, loss_abs: nan)' in message
        assert 'input data' in message
        assert 'process 0' not in message
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
