"""What ``tools/train.py`` adds to a config, whose types are names or classes."""

import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmdla.engine import AtomicCheckpointHook, EpochSeedHook, FiniteLossHook, ValidationCheckHook
from mmdla.engine.options import (
    use_atomic_checkpoints,
    use_exact_resume,
    use_finite_loss,
    use_validation_check,
)

CLASSES = """
from mmengine.hooks import CheckpointHook
from mmdla.engine import FiniteLossHook
default_hooks = dict(checkpoint=dict(type=CheckpointHook, interval=2))
custom_hooks = [dict(type=FiniteLossHook, gradients=False)]
"""


class OwnCheckpointHook(CheckpointHook):
    """Somebody's own."""


class OwnFiniteLossHook(FiniteLossHook):
    """Somebody's own."""


@pytest.mark.parametrize(
    'kind',
    ['CheckpointHook', 'mmengine.CheckpointHook', 'mmengine.hooks.CheckpointHook', CheckpointHook],
)
def test_mmengines_checkpoint_hook_is_replaced(kind):
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type=kind, interval=2))))
    use_atomic_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint == dict(
        type='mmdla.engine.AtomicCheckpointHook', interval=2
    )


@pytest.mark.parametrize('kind', [OwnCheckpointHook, AtomicCheckpointHook, 'AtomicCheckpointHook'])
def test_other_checkpoint_hooks_stay(kind):
    cfg = Config(dict(default_hooks=dict(checkpoint=dict(type=kind))))
    use_atomic_checkpoints(cfg)
    assert cfg.default_hooks.checkpoint.type == kind


def test_a_pure_python_config(tmp_path):
    path = tmp_path / 'config.py'
    path.write_text(CLASSES)
    cfg = Config.fromfile(path)
    use_atomic_checkpoints(cfg)
    use_finite_loss(cfg)
    assert cfg.default_hooks == dict(
        checkpoint=dict(type='mmdla.engine.AtomicCheckpointHook', interval=2)
    )


ADDED = [
    (use_finite_loss, 'finite_loss', FiniteLossHook),
    (use_validation_check, 'val_check', ValidationCheckHook),
]


@pytest.mark.parametrize(('use', 'key', 'kind'), ADDED, ids=lambda value: str(value)[:20])
def test_hooks_are_added_once(use, key, kind):
    cfg = Config(dict())
    use(cfg)
    use(cfg)
    assert cfg.default_hooks == {key: dict(type=f'mmdla.engine.{kind.__name__}')}
    own = type(f'Own{kind.__name__}', (kind,), {})
    for given in (kind, kind.__name__, f'mmdla.engine.{kind.__name__}', own):
        cfg = Config(dict(custom_hooks=[dict(type=given)]))
        use(cfg)
        assert cfg.default_hooks == {}
    cfg = Config(dict())
    cfg.custom_hooks = [kind()]
    use(cfg)
    assert cfg.default_hooks == {}


@pytest.mark.parametrize(('use', 'key', 'kind'), ADDED, ids=lambda value: str(value)[:20])
def test_none_leaves_them_out(use, key, kind):
    """And out of the config: MMEngine does not know None for hooks of others."""
    cfg = Config(dict(default_hooks={key: None}))
    use(cfg)
    assert cfg.default_hooks == {}


def test_exact_resume_with_a_class():
    cfg = Config(dict(custom_hooks=[dict(type=EpochSeedHook)], train_dataloader=dict()))
    use_exact_resume(cfg)
    assert 'epoch_seed' not in cfg.default_hooks
