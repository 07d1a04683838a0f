"""Neither importing mmdla nor testing it uses the network; a test that did would fail."""

import multiprocessing
import os
import socket
import subprocess
import sys
import urllib.request

import network_guard
import pytest

NOWHERE = '192.0.2.1'  # addresses for documentation (RFC 5737), which lead nowhere


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Where attempts of these tests are written, which are made on purpose."""
    path = tmp_path / 'record'
    monkeypatch.setenv(network_guard.RECORD, str(path))
    return path


def connect():
    socket.create_connection((NOWHERE, 80), timeout=1)


def send():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.sendto(b'x', (NOWHERE, 80))


def resolve():
    socket.getaddrinfo('example.org', 80)


def download():
    urllib.request.urlopen(f'http://{NOWHERE}/', timeout=1)


@pytest.mark.parametrize('attempt', [connect, send, resolve, download])
def test_attempts_are_refused_and_recorded(record, attempt):
    with pytest.raises(network_guard.NetworkError, match='may not use the network'):
        attempt()
    assert record.read_text().startswith('socket.')


def swallow():
    try:
        connect()
    except Exception:
        return


def test_attempts_of_child_processes_are_recorded(record):
    code = f'import urllib.request; urllib.request.urlopen("http://{NOWHERE}")'
    process = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert process.returncode and 'may not use the network' in process.stderr
    worker = multiprocessing.get_context('fork').Process(target=swallow)
    worker.start()
    worker.join()
    assert len(record.read_text().splitlines()) == 2


def test_a_test_that_swallows_the_error_fails_all_the_same(tmp_path):
    """With the real conftest.py, in a pytest of its own."""
    test = tmp_path / 'test_swallow.py'
    test.write_text(
        'import socket\n'
        'def test_it():\n'
        '    try:\n'
        f'        socket.create_connection(({NOWHERE!r}, 80), timeout=1)\n'
        '    except Exception:\n'
        '        pass\n'
    )
    options = ['-p', 'conftest', '-p', 'no:xdist', '-p', 'no:cacheprovider', '--rootdir', tmp_path]
    paths = f'{os.path.dirname(__file__)}:{os.environ["PYTHONPATH"]}'
    process = subprocess.run(
        [sys.executable, '-m', 'pytest', *options, test],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': paths},
        capture_output=True,
        text=True,
    )
    assert process.returncode == 1, process.stdout
    assert 'tried to use the network' in process.stdout
    assert f' {NOWHERE}' in process.stdout


def test_this_machine_is_not_the_network(record):
    with socket.create_server(('127.0.0.1', 0)) as server:
        socket.create_connection(server.getsockname()).close()
    socket.getaddrinfo('localhost', 80)
    left, right = socket.socketpair()
    left.close(), right.close()
    assert not record.exists()


def test_importing_needs_no_network(record):
    modules = 'mmdla, mmdla.apis.fold, mmdla.apis.zoo, mmdla.reproduce, mmdla.analysis.inspection, mmdet.apis'
    subprocess.run([sys.executable, '-c', f'import {modules}'], check=True)
    assert not record.exists()
