"""Parts of training."""

from .atomic_checkpoint import AtomicCheckpointHook
from .epoch_seed import EpochSeedHook
from .finite_loss import FiniteLossHook

__all__ = ['AtomicCheckpointHook', 'EpochSeedHook', 'FiniteLossHook']
