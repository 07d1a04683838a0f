"""Released vision transformers of MRLA, and DeiT: their names in ours, and what they are."""

import math
import re
from dataclasses import dataclass

from torch import Tensor

from .errors import CheckpointError
from .names import renamed

# Applied in order, each to what the one before left.
RULES = (
    (r'^blocks\.(\d+)\.mrla\.', r'layer_attentions.0.blocks.\1.'),
    (r'(\.blocks\.\d+)\.(?:mrla|mla|la)\.', r'\1.'),
    (r'\.lambda_t$', '.lambda_'),
    (r'\.Wq\.weight$', '.query.weight'),
    (r'\.Wk\.weight$', '.key.weight'),
    (r'\.Wv\.weight$', '.value.weight'),
    (r'\.norm([xo])\.', r'.norm_\1.'),
    (r'^blocks\.', 'layers.'),
    (r'^(layers\.\d+)\.norm([12])\.', r'\1.ln\2.'),
    (r'\.mlp\.fc1\.', '.ffn.layers.0.0.'),
    (r'\.mlp\.fc2\.', '.ffn.layers.1.'),
    (r'^patch_embed\.proj\.', 'patch_embed.projection.'),
    (r'^norm\.', 'ln1.'),
    (r'^head\.', 'fc.'),
)
HEAD = {'fc.weight': 'head.layers.head.weight', 'fc.bias': 'head.layers.head.bias'}
SELF_ATTENTION_CHANNELS = 64  # of a head, in every DeiT: not to be read from the shapes


@dataclass(frozen=True)
class ViTRelease:
    """A released vision transformer.

    Attributes:
        depth (int): Blocks.
        embed_dims (int): Channels of a token.
        feedforward_channels (int): Channels between the two linear layers of a block.
        patch_size (int): Pixels along the side of a patch.
        img_size (int): Pixels along the side of an image.
        attention (str, optional): Type of the layer attention.
        num_classes (int, optional): Classes of the linear head, None where there is none.
    """

    depth: int
    embed_dims: int
    feedforward_channels: int
    patch_size: int
    img_size: int
    attention: str | None
    num_classes: int | None
    block: str = 'transformer'
    reduction: None = None

    def __str__(self) -> str:
        head = f', {self.num_classes} classes' if self.num_classes else ', no classifier'
        attention = self.attention or 'no layer attention'
        return (
            f'VisionTransformer-{self.depth} ({self.embed_dims} channels, images of '
            f'{self.img_size}), {attention}{head}'
        )

    def backbone_cfg(self) -> dict:
        """Config of the backbone."""
        arch = dict(
            embed_dims=self.embed_dims,
            num_layers=self.depth,
            num_heads=max(1, self.embed_dims // SELF_ATTENTION_CHANNELS),
            feedforward_channels=self.feedforward_channels,
        )
        host = dict(
            type='mmpretrain.VisionTransformer',
            arch=arch,
            img_size=self.img_size,
            patch_size=self.patch_size,
        )
        return dict(
            type='mmdla.WithLayerAttention',
            backbone=host,
            layer_attention=self.attention and dict(type=self.attention),
            zero_init_attention=False,
        )


def is_released_vit(state: dict[str, Tensor]) -> bool:
    """Return whether the names are those of a released vision transformer."""
    return 'cls_token' in state and 'blocks.0.attn.qkv.weight' in state


def convert_released_vit(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Translate the names to those of :class:`~mmdla.WithLayerAttention`; the head is ``fc``."""
    return renamed((_translate(name), v) for name, v in state.items())


def convert_vit_checkpoint(state: dict[str, Tensor]) -> tuple[ViTRelease, dict[str, Tensor]]:
    """As :func:`~mmdla.checkpoint.convert_checkpoint`, for a released vision transformer."""
    from .recognise import build, compare  # which hands such a checkpoint on to here

    backbone = convert_released_vit(state)
    head = {HEAD[name]: backbone.pop(name) for name in HEAD if name in backbone}
    release = recognise_vit(backbone, head)
    compare(backbone, build(release))
    return release, {f'backbone.{name}': v for name, v in backbone.items()} | head


def recognise_vit(backbone: dict[str, Tensor], head: dict[str, Tensor]) -> ViTRelease:
    """Return which model these names and shapes, already under our names, belong to."""
    shapes = {name: tuple(v.shape) for name, v in backbone.items()}
    patch, tokens = shapes.get('patch_embed.projection.weight', ()), shapes.get('pos_embed', ())
    hidden = shapes.get('layers.0.ffn.layers.0.0.weight', ())
    if (len(patch), len(tokens), len(hidden)) != (4, 3, 2):
        raise CheckpointError(
            'not a released model: a vision transformer without patch embedding, position '
            'embedding or blocks'
        )
    weight, bias = (head.get(name) for name in HEAD.values())
    if head and (
        weight is None
        or weight.shape[1:] != patch[:1]
        or (bias is not None and bias.shape != weight.shape[:1])
        or not all(v.is_floating_point() and v.isfinite().all() for v in head.values())
    ):
        found = {name: tuple(v.shape) for name, v in head.items()}
        raise CheckpointError(f'not a released model: no linear classifier has {found}')
    blocks = [int(m[1]) for name in shapes if (m := re.match(r'layers\.(\d+)\.', name))]
    added = [name for name in shapes if name.startswith('layer_attentions.')]
    light = any(name.endswith('.lambda_') for name in added)
    return ViTRelease(
        depth=max(blocks) + 1,
        embed_dims=patch[0],
        feedforward_channels=hidden[0],
        patch_size=patch[-1],
        img_size=math.isqrt(max(tokens[1] - 1, 0)) * patch[-1],
        attention=('MRLALightTokens' if light else 'MRLABaseTokens') if added else None,
        num_classes=len(weight) if head else None,
    )


def _translate(name: str) -> str:
    for pattern, replacement in RULES:
        name = re.sub(pattern, replacement, name)
    return name
