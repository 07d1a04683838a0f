"""Build the CPU kernels ahead of their first use: ``python -m mmdla.ops.build``."""

import argparse
import sys
from collections.abc import Sequence

from . import extension


def main(argv: Sequence[str] | None = None) -> int:
    """Build the kernels, or find them built, and say where they are.

    Args:
        argv (Sequence[str], optional): Command line. Default: the one of the process.

    Returns:
        int: Exit code: 0 with the kernels, 1 without them.
    """
    parser = argparse.ArgumentParser(
        prog='python -m mmdla.ops.build',
        description='Compile the CPU kernels of mmdla, once per machine, PyTorch and compiler. '
        'CXX names another compiler, TORCH_EXTENSIONS_DIR another folder.',
    )
    parser.parse_args(argv)
    if extension.load():
        print(f'CPU kernels: {extension.library()}')
        return 0
    print(f'no CPU kernels: {extension.reason()}', file=sys.stderr)
    return 1


if __name__ == '__main__':
    sys.exit(main())
