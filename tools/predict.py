"""Predict for images, folders and videos: ``mmdla predict``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.predict import main

if __name__ == '__main__':
    sys.exit(run(main))
