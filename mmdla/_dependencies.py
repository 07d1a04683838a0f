"""What has to be there before the package can be imported."""

from importlib.util import find_spec

from ._combinations import check_combinations

NEEDED = ('torch', 'mmengine', 'mmcv')
MESSAGE = """mmdla needs {missing}, which {is_are} not installed.
Install one OpenMMLab family beside it:
  pip install "mmdla[onedl]"      maintained forks, Python >= 3.10 and current PyTorch
  pip install "mmdla[openmmlab]"  the original packages, PyTorch 2.4 and older
mmcv is compiled while it is installed: `make setup` of the repository does it all."""


def check_dependencies() -> None:
    """Say what to install if something is missing, or does not go together.

    Raises:
        ImportError: The package cannot be imported so.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ImportError(
            MESSAGE.format(missing=', '.join(missing), is_are='is' if len(missing) == 1 else 'are')
        )
    check_combinations()
