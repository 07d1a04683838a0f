"""Options, parsing and exit codes that the command lines share."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import DictAction
from mmengine.dist import barrier, get_rank, is_distributed

from mmdla.checkpoint import CheckpointError
from mmdla.engine.distributed import LOCAL_RANK
from mmdla.errors import InputError


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that the host libraries' train and test tools have in common."""
    parser.add_argument('--work-dir', help='folder of logs, metrics and checkpoints')
    add_cfg_options(parser)
    parser.add_argument(
        '--launcher', choices=list(LOCAL_RANK), default='none', help='what started the processes'
    )
    # torch.distributed.launch passes one spelling or the other, depending on the version
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_cfg_options(parser: argparse.ArgumentParser) -> None:
    """Add the option that overrides settings of the config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config, e.g. train_cfg.max_epochs=24 or key="[(a,b),(c,d)]" '
        '(quoted, without spaces)',
    )


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse ``argv`` and hand the local rank on to MMEngine, which reads it from the environment.

    Unlike plain argparse this also refuses a ``--cfg-options`` entry without ``=`` by a usage
    message.
    """
    try:
        args = parser.parse_args(argv)
    except (ValueError, AssertionError) as error:  # from DictAction
        parser.error(f'argument --cfg-options: expected KEY=VALUE ({error})')
    launcher = getattr(args, 'launcher', 'none')
    if launcher != 'none':  # MMEngine itself translates that of Slurm only
        local_rank = os.environ.get(LOCAL_RANK[launcher], str(args.local_rank))
        os.environ.setdefault('LOCAL_RANK', local_rank)
    return args


def positive(text: str) -> int:
    """Type of options that are counts or sizes."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f'must be a positive integer, got {text}')
    return value


def run(main: Callable[[Sequence[str]], Any], argv: Sequence[str] | None = None) -> int:
    """Run a tool.

    Args:
        main (Callable): Takes the command line without the program's name.
        argv (Sequence[str], optional): That command line. Default: the one of the process.

    Returns:
        int: Its exit code: 0, or 2 after input that the user can correct. Other errors pass.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        main(argv)
    except (InputError, CheckpointError) as error:
        if is_distributed():  # from here on every process reads data of its own
            print(f'error (rank {get_rank()}): {error}', file=sys.stderr)
        elif is_first_on_machine(argv):
            print(f'error: {error}', file=sys.stderr)
        return leave(2)
    barrier()  # the first process may still be writing
    return leave(0)


def leave(code: int) -> int:
    """Return the exit code; of several processes that work together each ends with it here.

    The threads of gloo abort a process if they meet an interpreter that is being taken down.
    """
    if is_distributed():
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def is_first_on_machine(argv: Sequence[str]) -> bool:
    """Return whether this process speaks for its machine: eight processes need not say the same.

    For what is found before they work together, in the config or the options.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument('--launcher', choices=list(LOCAL_RANK), default='none')
    variable = LOCAL_RANK[parser.parse_known_args(argv)[0].launcher]
    return variable is None or os.environ.get(variable, '0') == '0'
