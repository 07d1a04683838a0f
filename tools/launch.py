"""Start the processes of a job on this machine, and say which of them failed first.

    python tools/launch.py [options of torchrun] SCRIPT [arguments of the script]

Does what torchrun does: a process that dies ends the whole job. dist_train.sh and dist_test.sh
start it.
"""

import os
import signal
import sys
from collections.abc import Mapping, Sequence

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
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


def first_failure(failures: Mapping[int, ProcessFailure]) -> tuple[int, ProcessFailure]:
    """Rank and description of the process that failed first.

    Times are in whole seconds and do not settle it: torchrun ends the other processes by SIGTERM,
    unless they have lost their partner by then and end with an exception. A process that ended by
    another signal was the first.
    """

    def order(item: tuple[int, ProcessFailure]) -> tuple[bool, bool, int]:
        failure = item[1]
        return failure.exitcode == -signal.SIGTERM, failure.exitcode >= 0, failure.timestamp

    return min(failures.items(), key=order)


def describe(rank: int, failure: ProcessFailure, script: str) -> tuple[str, int]:
    """What happened and what to do, and the exit code of the job."""
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


def main(argv: Sequence[str]) -> int:
    """Run the job and return its exit code."""
    args = parse_args(argv)
    share_cores(args.nproc_per_node)
    try:
        torchrun(argv)
    except ChildFailedError as error:
        message, code = describe(*first_failure(error.failures), args.training_script)
    except SignalException as error:
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


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
