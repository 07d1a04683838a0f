"""The variants of ResNet that the host libraries name, so that one word changes there too."""

from mmengine.registry import MODELS

from .resnet import DLAResNet


@MODELS.register_module()
class DLAResNetV1c(DLAResNet):
    """:class:`DLAResNet` with a deep stem, as ``ResNetV1c``.

    Args:
        depth (int): As :class:`DLAResNet`.
        **kwargs: As :class:`DLAResNet`, but for ``deep_stem`` and ``avg_down``.
    """

    host_name = 'ResNetV1c'

    def __init__(self, depth: int, **kwargs) -> None:
        super().__init__(depth, deep_stem=True, avg_down=False, **kwargs)


@MODELS.register_module()
class DLAResNetV1d(DLAResNet):
    """:class:`DLAResNet` with a deep stem and average pooling in shortcuts, as ``ResNetV1d``.

    Args:
        depth (int): As :class:`DLAResNet`.
        **kwargs: As :class:`DLAResNet`, but for ``deep_stem`` and ``avg_down``.
    """

    host_name = 'ResNetV1d'

    def __init__(self, depth: int, **kwargs) -> None:
        super().__init__(depth, deep_stem=True, avg_down=True, **kwargs)


@MODELS.register_module()
class DLAResNeXt(DLAResNet):
    """:class:`DLAResNet` with the defaults of the host's ``ResNeXt`` (MMPretrain: 32 groups).

    Args:
        depth (int): As :class:`DLAResNet`, of bottlenecks.
        **kwargs: As :class:`DLAResNet`.
    """

    host_name = 'ResNeXt'

    def __init__(self, depth: int, **kwargs) -> None:
        super().__init__(depth, **kwargs)
