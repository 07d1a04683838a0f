"""``tools/train.py`` when a training breaks off: NaN, a full disk, damaged checkpoints."""

import json
import math
import resource

import pytest
import torch
from mmengine.config import Config

from mmdla.engine.options import (
    resume_from,
    use_atomic_checkpoints,
    use_exact_resume,
    use_finite_loss,
)
from mmdla.errors import InputError


def options(*pairs: str) -> list[str]:
    return ['--cfg-options', *pairs]


def test_an_image_that_becomes_infinite(cli, small_run):
    code, message = cli('train', *small_run, *options('model.data_preprocessor.std="[0,0,0]"'))
    assert code == 2
    error = message[message.index('error:') :]
    assert 'training stopped in iteration 1 (epoch 1)' in error
    assert 'it is in the input data: inputs holds' in error
    assert 'train2017/00000000000' in error
    assert 'Traceback' not in error


def test_a_weight_that_is_nan(cli, small_run, checkpoint, tmp_path):
    state = torch.load(checkpoint, weights_only=True)
    name = 'backbone.layer2.1.conv2.weight'
    state['state_dict'][name][0, 0] = math.nan
    torch.save(state, tmp_path / 'weights.pth')
    code, message = cli('train', *small_run, *options(f'load_from={tmp_path / "weights.pth"}'))
    assert code == 2
    assert 'NaN first in the output of backbone.layer2.1.conv2 (Conv2d)' in message
    assert 'its weight holds NaN' in message
    assert 'loss_cls: nan' in message and 'loss_bbox: nan' in message
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_damaged_checkpoints(cli, small_run, tmp_path):
    """The one before is used; if there is none, nothing is overwritten."""
    two = options('train_cfg.max_epochs=2', 'train_cfg.val_interval=5')
    assert cli('train', *small_run, *two)[0] == 0
    first, second = (tmp_path / f'run/epoch_{i}.pth' for i in (1, 2))
    whole = second.read_bytes()
    second.write_bytes(whole[: len(whole) // 2])

    code, message = cli('train', *small_run, '--resume', second)
    assert code == 2
    assert f'--resume: {second}: it is cut off' in message

    code, message = cli('train', *small_run, '--resume', *two)
    assert code == 0
    assert f'{second} is passed over: it is cut off' in message
    assert f'going on from {first}' in message
    logs = sorted((tmp_path / 'run').glob('*/vis_data/scalars.json'))
    lines = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    assert [line['epoch'] for line in lines if 'loss' in line] == [2, 2]
    repaired = torch.load(second, weights_only=False)['state_dict']
    assert repaired.keys() == torch.load(first, weights_only=False)['state_dict'].keys()

    for path in (first, second):
        path.write_bytes(b'')
    before = sorted((tmp_path / 'run').rglob('*'))
    code, message = cli('train', *small_run, '--resume', *two)
    assert code == 2
    assert 'none to go on from' in message
    assert sorted((tmp_path / 'run').rglob('*')) == before


def test_full_disk(cli, small_run, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        code, message = cli('train', *small_run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    assert 'error: ' in message and 'could not be written (File too large)' in message
    assert 'make room and go on' in message
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.fixture
def cfg(tmp_path) -> Config:
    return Config(
        dict(
            work_dir=str(tmp_path),
            train_cfg=dict(by_epoch=True),
            train_dataloader=dict(persistent_workers=True),
            default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=2)),
            load_from='start.pth',
        )
    )


def test_hooks_are_added_unless_the_config_decides(cfg):
    use_atomic_checkpoints(cfg)
    use_finite_loss(cfg)
    hooks = cfg.default_hooks
    assert hooks.checkpoint == dict(type='mmdla.engine.AtomicCheckpointHook', interval=2)
    assert hooks.finite_loss == dict(type='mmdla.engine.FiniteLossHook')

    own = Config(
        dict(
            default_hooks=dict(checkpoint=dict(type='MyHook'), finite_loss=None),
            custom_hooks=[dict(type='FiniteLossHook', gradients=False)],
        )
    )
    use_atomic_checkpoints(own)
    use_finite_loss(own)
    assert own.default_hooks == dict(checkpoint=dict(type='MyHook'))  # MMEngine refuses None
    bare = Config(dict(default_hooks=None))
    use_atomic_checkpoints(bare)
    assert bare.default_hooks.checkpoint.type == 'mmdla.engine.AtomicCheckpointHook'


def test_exact_resume_sets_what_it_needs(cfg):
    use_exact_resume(cfg)
    assert cfg.randomness == dict(seed=0, deterministic=True)
    assert cfg.train_dataloader.persistent_workers is False
    assert cfg.default_hooks.epoch_seed.type == 'mmdla.engine.EpochSeedHook'
    cfg.randomness.seed = 7
    use_exact_resume(cfg)
    assert cfg.randomness.seed == 7


def test_exact_resume_refuses_what_it_cannot_promise(cfg):
    cfg.default_hooks.checkpoint.by_epoch = False
    with pytest.raises(InputError, match='by_epoch=False'):
        use_exact_resume(cfg)
    cfg.train_cfg.by_epoch = False
    with pytest.raises(InputError, match='needs training by epochs'):
        use_exact_resume(cfg)


def test_without_checkpoints_it_starts_as_the_first_time(cfg):
    told = []
    resume_from(cfg, 'auto', told.append)
    assert not cfg.resume
    assert cfg.load_from == 'start.pth'
    assert 'starts from the beginning' in told[0]
