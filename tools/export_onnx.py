"""Export to ONNX or torch.export: ``mmdla export``."""

import sys

from mmdla.cli.command_line import run
from mmdla.cli.export import main

if __name__ == '__main__':
    sys.exit(run(main))
