"""A training of a second, by MMEngine's runner, for tests of its hooks."""

import itertools

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

import mmdla  # noqa: F401 - registers the hooks

NUMBERS = itertools.count()


class ToyModel(BaseModel):
    """Two blocks and two losses on 4 numbers a sample."""

    def __init__(self):
        super().__init__()
        self.block1 = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU())
        self.block2 = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.2))

    def forward(self, inputs: Tensor, data_samples=None, mode: str = 'loss') -> dict:
        x = self.block2(self.block1(inputs))
        return dict(loss_square=self.square(x), loss_abs=x.abs().mean(), accuracy=x.mean())

    def square(self, x: Tensor) -> Tensor:
        return x.square().mean()


class ToyData(torch.utils.data.Dataset):
    metainfo = dict(classes=('a', 'b'))

    def __init__(self):
        self.inputs = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.inputs[index] + 0.01 * torch.randn(4))


def toy_runner(work_dir, checkpoint=(), hooks=(), model=None, epochs=3, **kwargs) -> Runner:
    """A runner of 4 iterations an epoch.

    Args:
        checkpoint (dict): Arguments of the checkpoint hook.
        hooks (list[dict]): Custom hooks.
    """
    torch.manual_seed(1)  # of the weights
    checkpoint = {'type': 'AtomicCheckpointHook', 'interval': 1, **dict(checkpoint)}
    arguments = dict(
        model=model or ToyModel(),
        work_dir=str(work_dir),
        train_dataloader=dict(
            batch_size=2,
            dataset=ToyData(),
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1, 2]),
        default_hooks=dict(
            checkpoint=checkpoint,
            epoch_seed=dict(type='EpochSeedHook'),
        ),
        custom_hooks=list(hooks),
        randomness=dict(seed=1),
        cfg=Config(dict(randomness=dict(seed=1))),
        experiment_name=f'toy_{next(NUMBERS)}',
        log_level='WARNING',
        default_scope='mmengine',
    )
    return Runner(**dict(arguments, **kwargs))
