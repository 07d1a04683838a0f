"""From the ``layer_attention`` dict of a config to the module of a stage."""

from typing import Any

from mmengine.registry import MODELS

from ..arguments import check_cfg, check_names, errors_named, hint, parameters_of
from .base import DLABase, MRLABase
from .channel import ECA, SE
from .dia import DIALSTM
from .interface import LayerAttention
from .kcla import KCLA
from .light import DLALight, MRLALight
from .rla import RLA

# Found without a registry, so that what others name SE or ECA there is in nobody's way.
OURS = {
    cls.__name__: cls
    for cls in (DIALSTM, ECA, KCLA, RLA, SE, DLABase, DLALight, MRLABase, MRLALight)
}


def build_layer_attention(
    cfg: dict | None,
    channels: int,
    num_blocks: int,
    norm_cfg: dict,
    **crossing: Any,
) -> LayerAttention | None:
    """Build the layer attention of one stage.

    Args:
        cfg (dict, optional): ``type`` and the arguments that every stage shares; None for none.
        channels (int): Channels of the stage.
        num_blocks (int): Blocks of the stage.
        norm_cfg (dict): Norm layers of the backbone, unless ``cfg`` has its own. Without its
            ``requires_grad``: where pretrained norms are frozen, those of the attention are new
            and must learn.
        **crossing (Any): What an attention that crosses stages may take besides: see
            :class:`LayerAttention`.

    Raises:
        TypeError: ``cfg`` is no dict, or its type is no :class:`LayerAttention`.
        ValueError: The type is not registered, or an argument has a value that is not allowed.
    """
    cfg = check_cfg('layer_attention', cfg, optional=True)
    if cfg is None:
        return None
    module = find(cfg['type'])
    of_stage = dict(channels=channels, num_blocks=num_blocks)
    if module.crosses_stages:
        taken = parameters_of(module)
        of_stage.update({name: value for name, value in crossing.items() if name in taken})
    if given := set(of_stage) & set(cfg):
        raise ValueError(f'layer_attention: {min(given)} is that of the stage, it cannot be given')
    check_names('layer_attention', module, [key for key in cfg if key != 'type'])
    learning = {key: value for key, value in norm_cfg.items() if key != 'requires_grad'}
    arguments = {'norm_cfg': learning, **cfg, **of_stage}
    with errors_named('layer_attention'):
        return MODELS.build({**arguments, 'type': module})


def find(kind: str | type) -> type[LayerAttention]:
    """Return the class that a ``type`` names.

    A layer attention that the user registered comes first, then ours. Other modules of the same
    name, in MMEngine's registry or that of the host, are no layer attentions and do not matter.

    Raises:
        TypeError: The class is no :class:`LayerAttention`.
        ValueError: There is none of that name.
    """
    module: Any = kind
    if isinstance(kind, str):
        module = OURS.get(kind.removeprefix('mmdla.')) if kind.startswith('mmdla.') else None
        if module is None:
            with (
                errors_named('layer_attention'),  # a name with dots is imported
                MODELS.switch_scope_and_registry(None) as registry,  # the host's, if one builds
            ):
                module = registry.get(kind)
        if not _is_attention(module):
            module = OURS.get(kind, module)
    if module is None:
        raise ValueError(
            f'layer_attention: unknown type {kind!r}, known are {known_types()}'
            f'{hint(kind, known_types())}'
        )
    if not _is_attention(module):
        raise TypeError(f'layer_attention: {kind} is no LayerAttention, known are {known_types()}')
    return module


def _is_attention(module: Any) -> bool:
    return isinstance(module, type) and issubclass(module, LayerAttention)


def known_types() -> list[str]:
    """Names of our layer attentions and of those in MMEngine's root registry."""
    registered = (name for name, module in MODELS.module_dict.items() if _is_attention(module))
    return sorted({*OURS, *registered})
