"""The registered attentions as the tests go over them; a new one of ``OURS`` is in them by itself."""

from mmdla.models.arguments import parameters_of
from mmdla.models.layer_attention.build import OURS
from mmdla.models.layer_attention.interface import LayerAttention

# arguments for few channels, where the defaults do not fit
SMALL = {
    'DLALight': dict(reduction=4, head_channels=8),
    'DLABase': dict(reduction=4, head_channels=8),
    'MRLALight': dict(head_channels=8),
    'MRLABase': dict(head_channels=8),
    'DIALSTM': dict(reduction=4),
    'SE': dict(reduction=4),
    'KCLA': dict(head_channels=4, restart_block=1),
    'RLA': dict(hidden_channels=4),
}
FUSED = tuple(name for name, cls in OURS.items() if 'ops' in parameters_of(cls))
OTHERS = tuple(name for name in OURS if name not in FUSED)
# those that add to a block, so that the network can start as the one without them
ADDING = tuple(
    name
    for name, cls in OURS.items()
    if cls.start_as_identity is not LayerAttention.start_as_identity
)
CROSSING = tuple(name for name, cls in OURS.items() if cls.crosses_stages)


def small(kind: str | None) -> dict | None:
    """The config of an attention for few channels."""
    return None if kind is None else dict(type=kind, **SMALL.get(kind, {}))
