"""``host_train.py HOST OTHER [options]``: HOST's own train tool, with OTHER not to be imported."""

import importlib.util
import runpy
import sys
from pathlib import Path


class Refuse:
    """Import hook that makes a package look as if it were not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == self.package:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)


if __name__ == '__main__':
    host, other, *argv = sys.argv[1:]
    sys.meta_path.insert(0, Refuse(other))
    tool = Path(importlib.util.find_spec(host).origin).parent / '.mim/tools/train.py'
    sys.argv = [str(tool), *argv]
    runpy.run_path(str(tool), run_name='__main__')
