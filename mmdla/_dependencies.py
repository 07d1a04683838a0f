"""Check what has to be there before the package can be imported."""

from importlib.util import find_spec

from ._combinations import check_combinations

NEEDED = ('torch', 'mmengine', 'mmcv')
MESSAGE = """mmdla needs {missing}, which {is_are} not installed.
Install one OpenMMLab family beside it, from the clone (or `mmdla-….whl[onedl]` from a wheel):
  pip install ".[onedl]"      maintained forks, PyTorch 2.11
  pip install ".[openmmlab]"  the original packages, PyTorch 2.4, Python 3.10 to 3.12
and then mmcv, compiled for it, by:
  mmdla install-mmcv"""


def check_dependencies() -> None:
    """Say what to install if something is missing, or does not go together.

    Raises:
        ImportError: The package cannot be imported so.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        is_are = 'is' if len(missing) == 1 else 'are'
        raise ImportError(MESSAGE.format(missing=', '.join(missing), is_are=is_are), name='mmdla')
    check_combinations()
