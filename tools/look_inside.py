"""Show what the layer attention does: ``mmdla look-inside``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.look_inside import main

if __name__ == '__main__':
    sys.exit(run(main))
