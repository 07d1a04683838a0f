"""Count parameters and multiply-adds: ``mmdla get-flops``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.get_flops import main

if __name__ == '__main__':
    sys.exit(run(main))
