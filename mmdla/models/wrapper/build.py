"""From the ``layer_attention`` dict of a config to the attention of a stage of a host backbone."""

from difflib import get_close_matches

from mmengine.registry import MODELS
from torch import nn

from ..arguments import check_cfg, errors_named
from ..layer_attention import LayerAttention, build_layer_attention, known_types
from .tokens import TokenAttention


def build_attention(cfg: dict, channels: int, num_blocks: int, tokens: bool) -> nn.Module:
    """Build the layer attention of one stage.

    Args:
        cfg (dict): ``type`` and the arguments that every stage shares.
        channels (int): Channels of the stage.
        num_blocks (int): Blocks of the stage that it works behind.
        tokens (bool): Whether the blocks return tokens rather than maps.

    Raises:
        TypeError: ``cfg`` is no dict, or its type is no layer attention.
        ValueError: The attention is unknown, cannot work on the output of a block, or has an
            argument with a value that is not allowed.
    """
    cfg = check_cfg('layer_attention', cfg)
    kind = _resolve(cfg['type'])
    if isinstance(kind, type) and issubclass(kind, TokenAttention):
        if not tokens:
            raise ValueError(
                f'layer_attention: {kind.__name__} works on tokens (B, N, C), the blocks of this '
                'backbone return maps (B, C, H, W)'
            )
        if taken := {'channels', 'num_blocks'} & set(cfg):
            raise ValueError(f'layer_attention: {min(taken)} is that of the stage, leave it out')
        with errors_named('layer_attention'):
            return MODELS.build({**cfg, 'channels': channels, 'num_blocks': num_blocks})
    attention = build_layer_attention(cfg, channels, num_blocks, dict(type='BN'))
    if attention.crosses_stages:
        raise ValueError(
            f'layer_attention: {type(attention).__name__} hands its state on from stage to stage; '
            'the stages of this backbone hand on maps alone'
        )
    if type(attention).recalibrate is not LayerAttention.recalibrate:
        raise ValueError(
            f'layer_attention: {type(attention).__name__} changes the residual branch of a block '
            'before the shortcut is added; the blocks of this backbone return the sum'
        )
    if attention.overrides('extra'):
        raise ValueError(
            f'layer_attention: {type(attention).__name__} adds to what a block reads; '
            'the blocks of this backbone read their input alone'
        )
    return attention


def _resolve(kind: str | type) -> type:
    if not isinstance(kind, str):
        return kind
    with errors_named('layer_attention'), MODELS.switch_scope_and_registry(None) as registry:
        found = registry.get(kind)
    if found is None:
        known = known_types() + sorted(
            name
            for name, module in MODELS.module_dict.items()
            if isinstance(module, type) and issubclass(module, TokenAttention)
        )
        near = get_close_matches(kind, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else f'known are {known}'
        raise ValueError(f"layer_attention: unknown type '{kind}', {hint}")
    return found
