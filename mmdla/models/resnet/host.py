"""Defaults that the ResNets of the host libraries do not share.

A config that leaves such an argument out must mean what it meant before its backbone's type was
changed, so the default follows the library that builds the model: MMEngine's default scope.
"""

from mmengine.registry import DefaultScope


def host_library() -> str | None:
    """The library whose config is being built: ``'mmdet'``, ``'mmpretrain'``, ..., or None."""
    scope = DefaultScope.get_current_instance()
    name = None if scope is None else scope.scope_name
    return None if name == 'mmengine' else name


def default_out_indices(num_stages: int) -> tuple[int, ...]:
    """The last stage under MMPretrain, every stage elsewhere."""
    return (num_stages - 1,) if host_library() == 'mmpretrain' else tuple(range(num_stages))


def default_norm_eval() -> bool:
    """True under MMDetection, False elsewhere."""
    return host_library() == 'mmdet'


def default_stem_channels(base_channels: int) -> int:
    """64 under MMPretrain, ``base_channels`` elsewhere."""
    return 64 if host_library() == 'mmpretrain' else base_channels
