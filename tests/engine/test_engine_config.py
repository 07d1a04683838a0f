"""Options and checkpoints given on the command line."""

import pytest
from mmengine.config import Config

from mmdla.engine.config import apply_options, check_checkpoint
from mmdla.errors import InputError


@pytest.fixture
def cfg() -> Config:
    return Config(
        dict(train_cfg=dict(max_epochs=12), model=dict(type='A'), pipeline=[dict(a=1), dict(b=2)])
    )


def test_known_options_are_merged(cfg):
    options = {
        'train_cfg.max_epochs': 1,
        'model.layer_attention.reduction': 4,
        'pipeline.1.b': 3,
        'randomness.seed': 0,
        'find_unused_parameters': True,
    }
    apply_options(cfg, options)
    assert cfg.train_cfg.max_epochs == 1
    assert cfg.model == dict(type='A', layer_attention=dict(reduction=4))
    assert cfg.pipeline == [dict(a=1), dict(b=3)]
    assert cfg.randomness.seed == 0


@pytest.mark.parametrize(
    'key, hint',
    [
        ('train_cg.max_epochs', "did you mean 'train_cfg'"),
        ('zzz', "the config has no 'zzz'"),
        ('pipeline.7.b', '7'),
        ('train_cfg.max_epochs.x', 'max_epochs'),
    ],
)
def test_options_that_lead_nowhere_are_refused(cfg, key, hint):
    with pytest.raises(InputError, match=hint):
        apply_options(cfg, {key: 1})


def test_a_checkpoint_must_be_there(tmp_path):
    (tmp_path / 'epoch_12.pth').touch()
    check_checkpoint('checkpoint', str(tmp_path / 'epoch_12.pth'))
    check_checkpoint('checkpoint', 'https://example.com/epoch_12.pth')
    with pytest.raises(InputError, match=r"epoch_11.pth, did you mean 'epoch_12.pth'"):
        check_checkpoint('checkpoint', str(tmp_path / 'epoch_11.pth'))
