"""Arguments of released attentions, read from the names and shapes of their weights."""

import re

from torch import Tensor

State = dict[str, Tensor]
RESTART = re.compile(r'layer\d\.attention\.blocks\.(\d+)\.restart\.')


def kcla_options(backbone: State, cifar: bool) -> dict:
    """Return the width of a head and, where it is not the default, the block of the restart."""
    heads = _count(backbone, 'layer1.attention.blocks.0.mix.weight')
    channels = _count(backbone, 'layer1.attention.blocks.0.norm.weight')
    options: dict = dict(head_channels=max(1, channels // heads))
    restarts = {int(match[1]) for name in backbone if (match := RESTART.match(name))} - {0}
    if restarts:
        options['restart_block'] = min(restarts)
    elif cifar:
        options['restart_block'] = None
    return options


def rla_options(backbone: State, cifar: bool) -> dict:
    """Return the width of the recurrent map, and what there is besides."""
    options: dict = dict(hidden_channels=_count(backbone, 'layer1.attention.recurrent.weight'))
    if any('.attention.eca.' in name for name in backbone):
        options['eca'] = True
    if any('.attention.output_norm.' in name for name in backbone):
        options['append_state'] = True
    return options


def _count(backbone: State, name: str) -> int:
    """How many channels or heads a weight has, 1 where it has none."""
    shape = backbone[name].shape if name in backbone else ()
    return max((1, *shape[:1]))


OPTIONS = dict(KCLA=kcla_options, RLA=rla_options)
