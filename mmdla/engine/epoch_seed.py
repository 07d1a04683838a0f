"""Training that can be interrupted without changing its result."""

import random

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner

from mmdla.errors import InputError


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seed every random number generator anew at the start of each epoch.

    MMEngine seeds once, when training starts, and a checkpoint does not hold the state of the
    generators (those of the workers that load data could not even be read). So after ``--resume``
    drop path and augmentation differ from those of a run that was not interrupted. With this hook
    an epoch's random numbers depend on the run's seed, the epoch and the process's rank alone.

    The workers have to be started anew in every epoch: ``persistent_workers=False`` in the
    training dataloader. To be switched on by
    ``--cfg-options default_hooks.epoch_seed.type=EpochSeedHook``.

    Raises:
        InputError: At the start of training, if it counts iterations instead of epochs, has no
            ``randomness.seed`` or keeps its workers.
    """

    def before_train(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise InputError('EpochSeedHook needs training by epochs (train_cfg.by_epoch=True)')
        if runner.cfg.get('randomness', {}).get('seed') is None:
            raise InputError('EpochSeedHook needs randomness.seed, got None')
        loader = runner.train_dataloader
        if loader.persistent_workers:
            raise InputError('EpochSeedHook needs train_dataloader.persistent_workers=False')
        # MMEngine's gives every worker the same numbers in every epoch; PyTorch seeds workers
        # from the generator of this process
        loader.worker_init_fn = None

    def before_train_epoch(self, runner: Runner) -> None:
        entropy = (runner.seed, runner.epoch, get_rank())
        for_python, for_numpy, for_torch = np.random.SeedSequence(entropy).generate_state(3)
        random.seed(int(for_python))
        np.random.seed(for_numpy)
        torch.manual_seed(int(for_torch))  # of the GPUs too
