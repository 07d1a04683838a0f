"""Norms and convolutions from their configs: what may be asked for, at the limits."""

import pytest
import torch
from torch import nn

from mmdla.models.layers import build_conv, build_norm, check_norm_cfg


@pytest.mark.parametrize(
    'options',
    [
        dict(eps=0),
        dict(eps=1e-3),
        dict(eps=2.0),
        dict(momentum=0),
        dict(momentum=0.5),
        dict(momentum=1),
        dict(momentum=None),
        dict(requires_grad=False, affine=True, track_running_stats=False),
    ],
    ids=str,
)
def test_norms_that_may_be_asked_for(options):
    given = dict(type='BN', **options)
    checked = check_norm_cfg(given)
    assert checked == given and checked is not given
    _, layer = build_norm(checked, 4)
    for name in options.keys() - {'requires_grad'}:
        assert getattr(layer, name) == options[name]
    assert layer.weight.requires_grad == options.get('requires_grad', True)


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        (dict(eps=-1e-9), ValueError, 'norm_cfg: eps must be >= 0, got -1e-09'),
        (dict(eps='0'), TypeError, r"norm_cfg: eps must be a number, got '0'"),
        (dict(eps=None), TypeError, 'norm_cfg: eps must be a number, got None'),
        (dict(momentum=-0.1), ValueError, r'norm_cfg: momentum must be in \[0, 1\], got -0.1'),
        (dict(momentum=1.1), ValueError, r'norm_cfg: momentum must be in \[0, 1\], got 1.1'),
        (dict(momentum=True), TypeError, 'norm_cfg: momentum must be a number, got True'),
        (dict(affine=1), TypeError, 'norm_cfg: affine must be True or False, got 1'),
    ],
    ids=str,
)
def test_norms_that_may_not(options, error, words):
    with pytest.raises(error, match=words):
        check_norm_cfg(dict(type='BN', **options))


def test_batch_norm_unless_told():
    assert check_norm_cfg(None) == dict(type='BN')


@pytest.mark.parametrize(
    ('kind', 'words'),
    [
        ('BatchNorm', "unknown type 'BatchNorm', did you mean 'BN'"),
        ('GroupNorm2', "unknown type 'GroupNorm2', did you mean 'GN'"),
        ('zzzz', "unknown type 'zzzz'$"),
        ('ResNetx', "unknown type 'ResNetx'$"),  # near to a backbone, to no norm
        ('Convv', "unknown type 'Convv'$"),
    ],
)
def test_unknown_norms(kind, words):
    """The nearest word is one of a norm, of whatever else the registry has."""
    with pytest.raises(ValueError, match=words):
        build_norm(dict(type=kind), 4)


def test_norms_of_other_maps():
    """And one that is tried on a map stays as it was."""
    with pytest.raises(ValueError, match='must be a norm of maps'):
        build_norm(dict(type='BN1d'), 4)
    _, layer = build_norm(dict(type='BN', eps=0), 4)
    assert layer.eps == 0 and layer.training
    assert torch.equal(layer.running_mean, torch.zeros(4)) and layer.num_batches_tracked == 0


def test_convolutions():
    assert type(build_conv(None, 4, 8, 3)) is nn.Conv2d
    for kind in ('Conv1d', 'Conv3d', 'deconv'):
        with pytest.raises(ValueError, match='conv_cfg'):
            build_conv(dict(type=kind), 4, 8, 3)
