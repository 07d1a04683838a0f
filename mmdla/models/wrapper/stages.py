"""Find the stages of a host backbone: where its blocks are, and which of them keep the shape."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

KNOWN = (
    'ResNets (RegNet, Res2Net, ResNeSt, ...), ConvNeXt, Swin, PVT and the VisionTransformer of '
    'MMDetection and MMPretrain'
)


@dataclass(frozen=True)
class Stage:
    """Blocks that a host runs one after the other.

    Attributes:
        number (int): Which stage of the host it is, from 0.
        path (str): Name of their container in the backbone, such as ``'stages.0.blocks'``.
        owner (nn.Module): The module whose ``forward`` runs them.
        attended (tuple[int, ...]): Blocks of the container that keep the shape.
        channels (int): Channels of what these return.
        tokens (bool): Whether they return tokens (B, N, C), else maps (B, C, H, W).
    """

    number: int
    path: str
    owner: nn.Module
    attended: tuple[int, ...]
    channels: int
    tokens: bool


def find_stages(backbone: nn.Module) -> list[Stage]:
    """Find the stages of a host backbone, those without a shape-keeping block left out.

    Raises:
        ValueError: There are none, or not in a form that is known.
    """
    stages = []
    for number, (path, owner, tokens) in enumerate(_containers(backbone)):
        blocks = backbone.get_submodule(path)
        widths = [_kept_channels(block, tokens) for block in blocks]
        attended = tuple(i for i, width in enumerate(widths) if width)
        if attended:
            stages.append(Stage(number, path, owner, attended, widths[attended[0]], tokens))
    if not stages:
        raise ValueError(
            f'backbone: no stages of shape-keeping blocks found in {type(backbone).__name__}, '
            f'known are the {KNOWN}'
        )
    return stages


def is_vision_transformer(backbone: nn.Module) -> bool:
    """Return whether all blocks form one stage, over tokens of which some are extra."""
    return isinstance(getattr(backbone, 'layers', None), nn.ModuleList) and isinstance(
        getattr(backbone, 'num_extra_tokens', None), int
    )


def is_pyramid(backbone: nn.Module) -> bool:
    """Return whether every stage is a list of patch embedding, blocks and norm."""
    layers = getattr(backbone, 'layers', None)
    return isinstance(layers, nn.ModuleList) and all(
        isinstance(layer, nn.ModuleList) and len(layer) == 3 for layer in layers
    )


def _containers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module, bool]]:
    """Name of a container, who runs its blocks, and whether these return tokens."""
    if is_vision_transformer(backbone):
        if type(backbone).__name__ in ('VisionTransformer', 'DistilledVisionTransformer'):
            yield 'layers', backbone, True
        return
    for name in getattr(backbone, 'res_layers', ()):
        yield name, getattr(backbone, name), False
    stages = getattr(backbone, 'stages', None)
    for i, stage in enumerate(stages if isinstance(stages, nn.ModuleList) else ()):
        if isinstance(stage, nn.Sequential):
            yield f'stages.{i}', stage, False
        elif isinstance(getattr(stage, 'blocks', None), nn.ModuleList):
            yield f'stages.{i}.blocks', stage, True
    for i in range(len(backbone.layers) if is_pyramid(backbone) else 0):
        yield f'layers.{i}.1', backbone, True


def _kept_channels(block: nn.Module, tokens: bool) -> int | None:
    """Channels of a block that keeps the shape of its input, None of any other."""
    if tokens:
        norm = getattr(block, 'norm1', None)  # of a transformer's block
        return norm.normalized_shape[-1] if isinstance(norm, nn.LayerNorm) else None
    if hasattr(block, 'depthwise_conv'):  # ConvNeXt
        return block.depthwise_conv.out_channels
    if getattr(block, 'downsample', True) is None:  # ResNet
        return (block.conv3 if hasattr(block, 'conv3') else block.conv2).out_channels
    return None
