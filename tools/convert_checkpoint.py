"""Convert the authors' checkpoints: ``mmdla convert-checkpoint``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.convert_checkpoint import main

if __name__ == '__main__':
    sys.exit(run(main))
