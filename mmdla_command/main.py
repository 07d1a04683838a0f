"""Find the subcommand of ``mmdla`` and run it; nothing else is imported before it is known."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any, NamedTuple

from .versions import table


class Command(NamedTuple):
    """One subcommand.

    Args:
        help (str): What it does, in a line.
        target (str): Module with a function ``main(argv)`` that returns the exit code; those of
            ``mmdla.cli`` return nothing and raise what ``mmdla.cli.command_line.run`` reports.
    """

    help: str
    target: str


COMMANDS = {
    'train': Command('train a detector or a classifier', 'mmdla.cli.train'),
    'test': Command('evaluate a checkpoint', 'mmdla.cli.test'),
    'predict': Command('predict for images, folders and videos', 'mmdla.cli.predict'),
    'export': Command('export to ONNX or torch.export', 'mmdla.cli.export'),
    'look-inside': Command('show what the attention of a model does', 'mmdla.cli.look_inside'),
    'benchmark': Command('time and memory beside the plain ResNet', 'mmdla.cli.benchmark'),
    'get-flops': Command('count parameters and multiply-adds', 'mmdla.cli.get_flops'),
    'check-data': Command('check annotations and images', 'mmdla.cli.check_data'),
    'convert-checkpoint': Command(
        "convert the authors' checkpoints", 'mmdla.cli.convert_checkpoint'
    ),
    'configs': Command('list the shipped configs, copy one', 'mmdla_command.configs'),
    'build': Command('compile the CPU kernels', 'mmdla.ops.build'),
    'install-mmcv': Command(
        'compile mmcv with its operations for this environment', 'mmdla_command.install_mmcv'
    ),
    'version': Command('versions of mmdla and what it runs on', ''),
}  # fmt: skip
HELP = """usage: mmdla COMMAND [options]

Layer attention for OpenMMLab: train and use detectors and classifiers with DLA-ResNet backbones.

commands:
{commands}

mmdla COMMAND --help shows the options of a command. A shipped config can be given by its name:
  mmdla train faster_rcnn_dla_r50 --cfg-options train_cfg.max_epochs=24"""


def usage() -> str:
    """Return the text of ``mmdla --help``."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:{width}}  {command.help}' for name, command in COMMANDS.items()]
    return HELP.format(commands='\n'.join(lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv (Sequence[str], optional): Subcommand and its options. Default: those of the process.

    Returns:
        int: Exit code; 2 for input that the user can correct.
    """
    name, *rest = (sys.argv[1:] if argv is None else argv) or ['--help']
    if name in ('-h', '--help', 'help'):
        print(usage())
        return 0
    if name in ('-V', '--version', 'version'):
        print(table())
        return 0
    if name not in COMMANDS:
        close = get_close_matches(name, COMMANDS, n=1)
        hint = f', did you mean {close[0]!r}?' if close else ': mmdla --help lists the commands'
        print(f'error: mmdla has no command {name!r}{hint}', file=sys.stderr)
        return 2
    target = COMMANDS[name].target
    try:
        module = importlib.import_module(target)
        if target.startswith('mmdla.cli.'):
            return _run_tool(name, module.main, rest)
        return module.main(rest) or 0
    except ImportError as error:
        if error.name != 'mmdla':
            raise
        print(f'error: {error}', file=sys.stderr)  # mmdla says what to install
        return 2


def _run_tool(name: str, main: Callable[[Sequence[str]], Any], argv: list[str]) -> int:
    """Run a tool of ``mmdla.cli`` under the name of the subcommand."""
    from mmdla.cli.command_line import run

    before = sys.argv[0]
    sys.argv[0] = f'mmdla {name}'  # what argparse calls the program
    try:
        return run(main, argv)
    finally:
        sys.argv[0] = before
