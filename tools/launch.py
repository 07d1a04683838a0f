"""Start the processes of a job on this machine; ``dist_train.sh`` and ``dist_test.sh`` call it."""

import sys

from mmdla.cli.launch import main

if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
