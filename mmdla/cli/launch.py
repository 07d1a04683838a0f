"""Start the processes of a job on this machine, and say which of them failed first.

    python tools/launch.py [options of torchrun] SCRIPT [arguments of the script]

Does what torchrun does: a process that dies ends the job. dist_train.sh and dist_test.sh start it.

The ``record`` of torch.distributed.elastic is not enough: it keeps what a process has raised, while
one that is killed by a signal, or hangs until torchrun kills it, raises nothing.
"""

import logging
import os
import signal
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch.distributed.elastic.multiprocessing import api as multiprocessing
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.run import main as torchrun
from torch.distributed.run import parse_args


def share_cores(processes: str) -> None:
    """Give every process its share of the cores; torchrun gives each one core.

    On GPUs one is right: the other cores are for the processes that load data.
    """
    if processes.isdigit() and int(processes) and not torch.cuda.is_available():
        cores = len(os.sched_getaffinity(0)) // int(processes)
        os.environ.setdefault('OMP_NUM_THREADS', str(max(cores, 1)))


class Unresponsive(logging.Handler):
    """Collects the processes that did not end when torchrun asked them to, and were killed."""

    SENTENCE = 'Unable to shutdown process'  # of torchrun, which tells it to its log alone

    def __init__(self) -> None:
        super().__init__()
        self.pids: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith(self.SENTENCE) and record.args:
            self.pids.add(record.args[0])


@contextmanager
def watch_unresponsive() -> Iterator[set[int]]:
    """Yield their numbers, complete when torchrun has ended."""
    log, handler = logging.getLogger(multiprocessing.__name__), Unresponsive()
    log.addHandler(handler)
    try:
        yield handler.pids
    finally:
        log.removeHandler(handler)


def first_failure(
    failures: Mapping[int, ProcessFailure], unresponsive: Collection[int] = ()
) -> tuple[int, ProcessFailure]:
    """Rank and description of the process that failed first.

    Times are in whole seconds and do not settle it: torchrun ends the other processes by SIGTERM,
    unless they have lost their partner by then and end with an exception. A process that ended by
    another signal was the first, if it was not torchrun that killed it in the end.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, bool, int]:
        failure = item[1]
        ended = failure.exitcode == -signal.SIGTERM
        late = failure.pid in unresponsive
        return late, ended, failure.exitcode >= 0, failure.timestamp

    return min(failures.items(), key=order)


def describe(rank: int, failure: ProcessFailure, script: str) -> tuple[str, int]:
    """Return what happened and what to do, and the exit code of the job."""
    who = f'rank {rank} (local rank {failure.local_rank}, process {failure.pid})'
    if failure.exitcode < 0:
        what = f'was killed by {failure.signal_name()}'
        if -failure.exitcode == signal.SIGKILL:
            what += ', as the system does when memory runs out'
    else:
        what = f'failed with exit code {failure.exitcode}, see its message above'
    message = f'{who} {what}; the other processes were stopped.'
    if failure.exitcode != 2 and os.path.basename(script) == 'train.py':  # 2: bad input
        message += ' To go on from the last checkpoint add --resume to the command.'
    return message, failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode


def describe_unresponsive(failures: Mapping[int, ProcessFailure], pids: Collection[int]) -> str:
    """Return the processes that hung, which made the others give up."""
    hung = [(rank, failure) for rank, failure in failures.items() if failure.pid in pids]
    return ''.join(
        f' Rank {rank} (local rank {failure.local_rank}, process {failure.pid}) had not ended 30 '
        'seconds later and was killed: it hung, and the others may have failed from waiting for it.'
        for rank, failure in hung
    )


def main(argv: Sequence[str]) -> int:
    """Run the job and return its exit code."""
    args = parse_args(argv)
    share_cores(args.nproc_per_node)
    try:
        with watch_unresponsive() as unresponsive:
            torchrun(argv)
    except ChildFailedError as error:
        first = first_failure(error.failures, unresponsive)
        message, code = describe(*first, args.training_script)
        message += describe_unresponsive(error.failures, unresponsive - {first[1].pid})
    except multiprocessing.SignalException as error:
        name = signal.Signals(error.sigval).name
        message, code = f'{name} ended the job.', 128 + error.sigval
    except RuntimeError as error:
        first_line = str(error).splitlines()[0]
        if 'EADDRINUSE' in str(error):  # no DistError in PyTorch 2.4
            message = f'port {args.master_port} is in use on this machine, set another as PORT'
        elif not isinstance(error, torch.distributed.DistError):
            raise
        else:
            message = f'the {args.nnodes} machines of the job did not find each other: {first_line}'
        code = 1
    else:
        return 0
    print(f'error: {message}', file=sys.stderr)
    return code
