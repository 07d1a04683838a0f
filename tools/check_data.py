"""Check annotations and images: ``mmdla check-data``."""

import sys

from mmdla.cli.check_data import main
from mmdla.cli.command_line import run

if __name__ == '__main__':
    sys.exit(run(main))
