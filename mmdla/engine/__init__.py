"""Parts of training."""

from .distributed import CPUDistributedDataParallel
from .epoch_seed import EpochSeedHook

__all__ = ['CPUDistributedDataParallel', 'EpochSeedHook']
