"""``python -m mmdla`` is the command ``mmdla``, for launchers that want a module."""

import sys

from mmdla_command.main import main

sys.exit(main())
