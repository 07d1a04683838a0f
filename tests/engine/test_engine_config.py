"""Options and checkpoints given on the command line."""

from argparse import Namespace

import pytest
import torch
from mmengine.config import Config

from mmdla.engine.config import (
    apply_options,
    check_checkpoint,
    check_weights,
    load_config,
    set_classification_defaults,
)
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


def arguments(config, **changes) -> Namespace:
    return Namespace(
        **dict(
            dict(config=str(config), cfg_options=None, launcher='none', work_dir=None), **changes
        )
    )


def test_where_a_run_is_kept(tmp_path):
    """What the command line says, then what the config says, then a folder of its name."""
    bare, own = tmp_path / 'bare.py', tmp_path / 'own.py'
    bare.write_text('a = 1')
    own.write_text("work_dir = 'runs/x'")
    assert load_config(arguments(bare)).work_dir == 'work_dirs/bare'
    assert load_config(arguments(own)).work_dir == 'runs/x'
    assert load_config(arguments(own, work_dir='here')).work_dir == 'here'
    assert load_config(arguments(own)).launcher == 'none'


@pytest.mark.parametrize(('workers', 'persistent'), [(0, False), (1, True), (4, True)])
def test_dataloaders_of_classifiers(workers, persistent):
    """Without workers PyTorch refuses persistent ones."""

    def loaders(scope, **options):
        cfg = Config(
            dict(default_scope=scope, train_dataloader=dict(num_workers=workers, **options))
        )
        set_classification_defaults(cfg, ['train_dataloader', 'val_dataloader'])
        assert 'val_dataloader' not in cfg
        return cfg.train_dataloader

    assert loaders('mmpretrain') == dict(
        num_workers=workers,
        collate_fn=dict(type='default_collate'),
        pin_memory=torch.cuda.is_available(),
        persistent_workers=persistent,
    )
    given = dict(collate_fn=dict(type='pseudo_collate'), pin_memory=True, persistent_workers=False)
    assert loaders('mmpretrain', **given) == dict(num_workers=workers, **given)
    assert loaders('mmdet') == dict(num_workers=workers)


@pytest.mark.parametrize(
    ('weight', 'words'),
    [
        (torch.ones(2), None),
        (torch.ones(2, dtype=torch.half), None),
        (torch.tensor([1, float('nan')]), 'NaN'),
        (torch.ones(2, dtype=torch.cfloat), 'complex'),
    ],
    ids=str,
)
def test_weights_that_pytorch_would_take(weight, words):
    own = dict(a=torch.zeros(2), b=torch.zeros(3))
    if words is None:
        check_weights(dict(a=weight, c=weight), own, 'x.pth')
    else:
        with pytest.raises(InputError, match=rf'(?s)checkpoint x\.pth.*{words}.*a'):
            check_weights(dict(a=weight), own, 'x.pth')
