"""Refuse connections that leave this machine, in the process of a test and in all that it starts.

An audit hook sees every connection that Python code opens, however it does so. What it refuses is
also written to a file, because libraries catch the error and go on.
"""

import os
import socket
import sys

RECORD = 'MMDLA_TEST_NETWORK_RECORD'  # environment variable: the file of refused connections
LOCAL = {'', 'localhost', '0.0.0.0', '::', '::1'}
SENDING = {'socket.connect', 'socket.sendto', 'socket.sendmsg'}
RESOLVING = {'socket.getaddrinfo', 'socket.gethostbyname', 'socket.gethostbyaddr'}
INTERNET = {socket.AF_INET, socket.AF_INET6}


class NetworkError(RuntimeError):
    """A test tried to leave this machine."""


_forbidden = False


def forbid() -> None:
    """From now on, in this process and its children."""
    global _forbidden
    if not _forbidden:
        _forbidden = True
        sys.addaudithook(_check)


def _check(event: str, args: tuple) -> None:
    if event in RESOLVING:
        host = args[0]
    elif event in SENDING and args[0].family in INTERNET and args[1] is not None:
        host = args[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host is None or host in LOCAL or host.startswith('127.') or host == socket.gethostname():
        return
    if os.environ.get(RECORD):
        with open(os.environ[RECORD], 'a') as record:
            record.write(f'{event} {host}\n')
    raise NetworkError(f'tests may not use the network: {event} {host}')
