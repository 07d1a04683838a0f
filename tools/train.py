"""Train a detector or a classifier: ``mmdla train``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.train import main

if __name__ == '__main__':
    sys.exit(run(main))
