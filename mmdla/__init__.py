"""Layer attention for OpenMMLab: DLA-ResNet backbones and the Dynamic Sharing Unit.

Importing the package registers its components in MMEngine's root registry, so that
``type='DLAResNet'`` works in every OpenMMLab library.
"""

from ._dependencies import check_dependencies
from .version import __version__

check_dependencies()

from ._hosts import find_installed_hosts  # noqa: E402 - after the check, which says what to install
from .analysis.inspection import LayerAttentionHook, record  # noqa: E402
from .apis.fold import fold_for_inference  # noqa: E402
from .engine import AtomicCheckpointHook, EpochSeedHook, FiniteLossHook  # noqa: E402
from .models import *  # noqa: E402, F403
from .models import __all__ as _models  # noqa: E402
from .utils import find_moved_modules  # noqa: E402

find_moved_modules()

find_installed_hosts()

__all__ = [
    'AtomicCheckpointHook',
    'EpochSeedHook',
    'FiniteLossHook',
    'LayerAttentionHook',
    '__version__',
    'fold_for_inference',
    'record',
    *_models,
]
