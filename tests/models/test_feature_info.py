"""Channels and strides that a backbone promises are those of the maps that it returns."""

import pytest
import torch
from mmengine.registry import MODELS

import mmdla  # noqa: F401 - registers the models

SMALL = dict(type='DLAResNet', depth=50, base_channels=8, layer_attention=None)
CIFAR = dict(type='DLAResNet_CIFAR', depth=20, layer_attention=None)
CASES = [
    dict(),
    dict(out_indices=(3,)),
    dict(out_indices=(0, 2)),
    dict(num_stages=2, strides=(1, 2), dilations=(1, 1), out_indices=(0, 1)),
    dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)),
    dict(strides=(2, 2, 2, 1)),
    dict(deep_stem=True, avg_down=True),
    dict(avg_down=True, strides=(1, 2, 2, 1)),
    dict(depth=18),
    dict(depth=34, expansion=2, stem_channels=16),
    dict(style='caffe', groups=2, base_width=8),
    dict(layer_attention=dict(type='RLA', append_state=True), out_indices=(0, 3)),
    CIFAR,
    CIFAR | dict(block='basic', strides=(1, 1, 2)),
]


@pytest.mark.parametrize('arguments', CASES, ids=str)
def test_is_what_comes_out(arguments):
    model = MODELS.build(arguments if 'type' in arguments else SMALL | arguments).eval()
    with torch.no_grad():
        maps = model(torch.rand(1, 3, 128, 64))
    assert len(model.feature_info) == len(maps) > 0
    for info, features, index in zip(model.feature_info, maps, model.out_indices, strict=True):
        assert info.module == f'layer{index + 1}'
        assert features.shape == (1, info.channels, 128 // info.stride, 64 // info.stride)
