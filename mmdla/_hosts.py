"""The names under which the host libraries are installed."""

from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from mmengine.config.utils import MODULE2PACKAGE


def find_installed_hosts() -> None:
    """Let bases of a config such as ``mmseg::…`` be found whoever distributes the library.

    MMEngine looks for the distribution ``mmsegmentation``, while the maintained fork of MMEngine is
    accompanied by ``onedl-mmsegmentation``; where the former is not installed, the module is named
    instead, which MMEngine can find as well.
    """
    for module, package in MODULE2PACKAGE.items():
        if package != module and not _is_distributed(package) and find_spec(module) is not None:
            MODULE2PACKAGE[module] = module


def _is_distributed(package: str) -> bool:
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
