"""Read by the type checker of `make lint`, never run: what users get for the public names."""

from torch import Tensor, nn, rand
from typing_extensions import assert_type

import mmdla
from mmdla.models.resnet.feature_info import FeatureInfo

model = mmdla.DLAResNet(50, layer_attention=dict(type='DLALight', reduction=16))
assert_type(model(rand(1, 3, 64, 64)), tuple[Tensor, ...])
assert_type(model.feature_info, tuple[FeatureInfo, ...])
assert_type(model.feature_info[0].channels, int)
assert_type(model.train(), mmdla.DLAResNet)
layers: list[nn.Module] = model.stem_layers

cifar = mmdla.DLAResNet_CIFAR(20)
assert_type(cifar(rand(1, 3, 32, 32)), tuple[Tensor, ...])

assert_type(mmdla.__version__, str)
