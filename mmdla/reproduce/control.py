"""The control of the detection tables: a plain network as large as the one with DLA-L."""

from mmengine.registry import MODELS

from mmdla.models import DLAResNet


@MODELS.register_module()
class DeeperResNet(DLAResNet):
    """A ResNet-50 with three more blocks in its last stage: 59 layers.

    With 16 base channels and no attention it has 2.32 M parameters and 416 M multiply-adds at
    256x256 pixels, where DLA-L with a reduction of 4 has 2.24 M and 399 M, the plain network
    1.48 M and 363 M.

    Args:
        depth (int): 59.
        **kwargs: As :class:`DLAResNet`.
    """

    arch_settings = {59: (DLAResNet.arch_settings[50][0], (3, 4, 6, 6))}
