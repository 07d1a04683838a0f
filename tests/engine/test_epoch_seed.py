"""Random numbers of an epoch depend on seed, epoch and rank, and on nothing before it."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch.utils.data import DataLoader, Dataset

from mmdla.engine import epoch_seed
from mmdla.errors import InputError


class Numbers(Dataset):
    """Random numbers of every generator that augmentation may use."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


def runner(epoch: int, seed: int = 7, loop=EpochBasedTrainLoop, **loader) -> SimpleNamespace:
    return SimpleNamespace(
        train_loop=object.__new__(loop),
        train_dataloader=DataLoader(Numbers(), batch_size=2, **loader),
        cfg=Config(dict(randomness=dict(seed=seed))),
        seed=seed,
        epoch=epoch,
    )


def numbers(of: SimpleNamespace) -> torch.Tensor:
    """Those of the main process and of the workers in one epoch."""
    hook = HOOKS.build(dict(type='EpochSeedHook'))
    hook.before_train(of)
    hook.before_train_epoch(of)
    own = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
    return torch.cat([own[None], *of.train_dataloader])


@pytest.mark.parametrize('workers', [0, 2])
def test_same_numbers_whatever_was_before(workers):
    first = numbers(runner(3, num_workers=workers))
    for _ in range(3):
        random.random(), np.random.rand(), torch.rand(5)
    assert torch.equal(numbers(runner(3, num_workers=workers)), first)
    assert len(first.unique()) == first.numel()


@pytest.mark.parametrize('other', [dict(epoch=4), dict(epoch=3, seed=8)])
@pytest.mark.parametrize('workers', [0, 2])
def test_other_numbers_in_another_epoch_or_run(workers, other):
    first = numbers(runner(3, num_workers=workers))
    second = numbers(runner(**other, num_workers=workers))
    assert not (first == second).any()


def test_other_numbers_in_another_process(monkeypatch):
    first = numbers(runner(3))
    monkeypatch.setattr(epoch_seed, 'get_rank', lambda: 1)
    assert not (first == numbers(runner(3))).any()


@pytest.mark.parametrize(
    ('of', 'words'),
    [
        (lambda: runner(0, loop=IterBasedTrainLoop), 'training by epochs'),
        (lambda: runner(0, seed=None), r'needs randomness\.seed, got None'),
        (lambda: runner(0, num_workers=1, persistent_workers=True), 'persistent_workers=False'),
    ],
)
def test_refuses_what_it_cannot_serve(of, words):
    with pytest.raises(InputError, match=words):
        HOOKS.build(dict(type='EpochSeedHook')).before_train(of())
