"""Measure time and memory beside the plain ResNet: ``mmdla benchmark``."""

import sys

from mmdla.cli.benchmark import main
from mmdla.cli.command_line import run

if __name__ == '__main__':
    sys.exit(run(main))
