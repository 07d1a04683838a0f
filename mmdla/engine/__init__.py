"""Parts of training."""

from .atomic_checkpoint import AtomicCheckpointHook
from .distributed import CPUDistributedDataParallel
from .epoch_seed import EpochSeedHook
from .finite_loss import FiniteLossHook
from .validation_check import ValidationCheckHook

__all__ = [
    'AtomicCheckpointHook',
    'CPUDistributedDataParallel',
    'EpochSeedHook',
    'FiniteLossHook',
    'ValidationCheckHook',
]
