"""Find the subcommand of ``mmdla`` and run it; nothing else is imported before it is known."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib.machinery import SourceFileLoader
from typing import NamedTuple

from .files import home
from .versions import table


class Command(NamedTuple):
    """One subcommand.

    Args:
        help (str): What it does, in a line.
        target (str): ``'package.module'`` with a function ``main(argv) -> int``, or the file of a
            script in ``tools``.
    """

    help: str
    target: str


COMMANDS = {
    'train': Command('train a detector or a classifier', 'train.py'),
    'test': Command('evaluate a checkpoint', 'test.py'),
    'predict': Command('predict for images, folders and videos', 'predict.py'),
    'export': Command('export to ONNX or torch.export', 'export_onnx.py'),
    'look-inside': Command('show what the attention of a model does', 'look_inside.py'),
    'benchmark': Command('time and memory beside the plain ResNet', 'benchmark.py'),
    'get-flops': Command('count parameters and multiply-adds', 'get_flops.py'),
    'check-data': Command('check annotations and images', 'check_data.py'),
    'convert-checkpoint': Command('convert the authors\' checkpoints', 'convert_checkpoint.py'),
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
        if target.endswith('.py'):
            return _run_script(name, target, rest)
        return importlib.import_module(target).main(rest) or 0
    except ImportError as error:
        if error.name != 'mmdla':
            raise
        print(f'error: {error}', file=sys.stderr)  # mmdla says what to install
        return 2


def _run_script(name: str, file: str, argv: list[str]) -> int:
    """Run the function ``main`` of a script of ``tools``, under the name of the subcommand."""
    from mmdla.cli.command_line import run  # says what to install if something is missing

    path = home() / 'tools' / file
    module_name = f'mmdla_tools_{path.stem}'
    loader = SourceFileLoader(module_name, str(path))
    spec = importlib.util.spec_from_loader(module_name, loader, is_package=False)
    assert spec is not None  # there is a loader
    module = sys.modules[module_name] = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    before = sys.argv[0]
    sys.argv[0] = f'mmdla {name}'  # what argparse calls the program
    try:
        return run(module.main, argv)
    finally:
        sys.argv[0] = before
