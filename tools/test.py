"""Evaluate a checkpoint: ``mmdla test``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.test import main

if __name__ == '__main__':
    sys.exit(run(main))
