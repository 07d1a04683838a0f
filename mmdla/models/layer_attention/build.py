"""From the ``layer_attention`` dict of a config to the module of a stage."""

from mmengine.registry import MODELS

from ..arguments import check_cfg, errors_named
from .interface import LayerAttention


def build_layer_attention(
    cfg: dict | None, channels: int, num_blocks: int, norm_cfg: dict
) -> LayerAttention | None:
    """Build the layer attention of one stage.

    Args:
        cfg (dict, optional): ``type`` and the arguments that every stage shares; None for none.
        channels (int): Channels of the stage.
        num_blocks (int): Blocks of the stage.
        norm_cfg (dict): Norm layers, unless ``cfg`` has its own.

    Raises:
        TypeError: ``cfg`` is no dict, or its type is no :class:`LayerAttention`.
        ValueError: The type is not registered, or an argument has a value that is not allowed.
    """
    cfg = check_cfg('layer_attention', cfg, optional=True)
    if cfg is None:
        return None
    if taken := {'channels', 'num_blocks'} & set(cfg):
        raise ValueError(f'layer_attention: {min(taken)} is that of the stage, it cannot be given')
    kind = cfg['type']
    with (
        errors_named('layer_attention'),  # a name with dots is imported
        MODELS.switch_scope_and_registry(None) as registry,  # the host library's, if one builds
    ):
        module = registry.get(kind) if isinstance(kind, str) else kind
    if module is None:
        raise ValueError(f"layer_attention: unknown type '{kind}', known are {known_types()}")
    if not (isinstance(module, type) and issubclass(module, LayerAttention)):
        raise TypeError(f'layer_attention: {kind} is no LayerAttention, known are {known_types()}')
    with errors_named('layer_attention'):
        return MODELS.build(
            {'norm_cfg': norm_cfg, **cfg, 'channels': channels, 'num_blocks': num_blocks}
        )


def known_types() -> list[str]:
    """Names of the registered layer attentions."""
    return sorted(
        name
        for name, module in MODELS.module_dict.items()
        if isinstance(module, type) and issubclass(module, LayerAttention)
    )
