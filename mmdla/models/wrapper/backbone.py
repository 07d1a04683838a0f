"""Layer attention around a host backbone."""

import re
from functools import partial

from mmcv.cnn.bricks import DropPath
from mmengine.registry import MODELS
from torch import Tensor, nn

from ..arguments import check_bool, check_cfg, errors_named
from .blocks import (
    Attending,
    Pass,
    Woven,
    WovenSequential,
    WovenStage,
    attend_tokens,
    subclass,
)
from .build import build_attention
from .stages import Stage, find_stages, is_pyramid, is_vision_transformer


class LayerAttentions(nn.ModuleDict):
    """The layer attentions of a backbone, by the number of their stage; know if weights came in."""

    loaded = False

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs) -> None:
        self.loaded = self.loaded or any(name.startswith(prefix) for name in state_dict)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


@MODELS.register_module()
class WithLayerAttention(Woven):
    """A backbone of MMDetection or MMPretrain whose blocks attend to the earlier ones.

    The result is an instance of the host's class too: its names, methods, outputs and checkpoints
    are the host's. The parameters of the attention of stage ``i`` are named
    ``layer_attentions.{i}.…``, which is all that a host's checkpoint lacks.

    The attention works behind every block that keeps the shape, on what the block returned
    (``x``) and on what it was given (``shortcut``). Attentions that change the residual branch
    (SE, ECA, DIALSTM) cannot: the blocks of other backbones do not hand it out. Nor can those whose
    state goes on from stage to stage (KCLA, RLA).

    Args:
        backbone (dict): Config of the host backbone, e.g.
            ``dict(type='mmdet.PyramidVisionTransformerV2', …)``.
        layer_attention (dict, optional): Config of the layer attention that every stage gets: a
            :class:`LayerAttention`, or a :class:`TokenAttention` where the blocks return tokens.
            None leaves the host as it is.
        zero_init_attention (bool): Start as the host, bit for bit. Default: True.
        with_cp (bool): Recompute every block, with its attention, in the backward pass.
            Default: False.

    Raises:
        TypeError: An argument has the wrong type.
        ValueError: The backbone has no stages that are known, or the attention cannot work there.

    Example:
        >>> import torch
        >>> from mmengine.registry import MODELS
        >>> import mmdla
        >>> host = dict(type='mmpretrain.ConvNeXt', arch='atto', out_indices=(2, 3))
        >>> attention = dict(type='DLALight', head_channels=8)
        >>> cfg = dict(type='WithLayerAttention', backbone=host, layer_attention=attention)
        >>> model = MODELS.build(cfg)
        >>> [tuple(out.shape) for out in model.eval()(torch.rand(1, 3, 64, 64))]
        [(1, 160), (1, 320)]
    """

    def __new__(
        cls,
        backbone: dict,
        layer_attention: dict | None,
        zero_init_attention: bool = True,
        with_cp: bool = False,
    ) -> nn.Module:
        cfg = check_cfg('backbone', backbone)
        with errors_named('backbone'):
            host = MODELS.build(cfg)
        if not isinstance(host, nn.Module):
            raise TypeError(f'backbone: {cfg["type"]} is no module, got {type(host).__name__}')
        if isinstance(host, WithLayerAttention):
            raise ValueError('backbone: has layer attention already')
        bases = [cls, type(host)]
        if hasattr(host, 'get_layer_depth'):
            bases.insert(0, _LayerDepth)
        if is_vision_transformer(host):
            bases.insert(0, _VisionTransformer)
        if is_pyramid(host):
            bases.insert(0, _Pyramid)
        for module in host.modules():
            if isinstance(module, DropPath):  # a NumPy number stops torch.compile
                module.drop_prob = float(module.drop_prob)
        host.__class__ = subclass(*bases)
        return host

    def __init__(
        self,
        backbone: dict,
        layer_attention: dict | None,
        zero_init_attention: bool = True,
        with_cp: bool = False,
    ) -> None:
        self.zero_init_attention = check_bool('zero_init_attention', zero_init_attention)
        check_bool('with_cp', with_cp)
        self.layer_attentions = LayerAttentions()
        self.attended_blocks: dict[str, list[str]] = {}  # names, by stage
        self.attending: dict[str, Attending] = {}  # of blocks that the backbone itself runs
        if check_cfg('layer_attention', layer_attention, optional=True) is None:
            return
        for stage in find_stages(self):
            number, blocks = str(stage.number), len(stage.attended)
            attention = build_attention(layer_attention, stage.channels, blocks, stage.tokens)
            self.layer_attentions[number] = attention
            self.attended_blocks[number] = [f'{stage.path}.{n}' for n in stage.attended]
            self._weave(stage, Attending(attention, stage.attended, with_cp))
        self._start_attention()

    def _weave(self, stage: Stage, attending: Attending) -> None:
        """Let the module whose ``forward`` runs the blocks know the attention."""
        if stage.owner is self:
            self.attending[str(stage.number)] = attending
            return
        mixin = WovenSequential if isinstance(stage.owner, nn.Sequential) else WovenStage
        stage.owner.__class__ = subclass(mixin, type(stage.owner))
        stage.owner.attending = attending

    def init_weights(self) -> None:
        """Initialize as the host does; the attention starts as the identity unless it is loaded."""
        self.layer_attentions.loaded = False
        super().init_weights()
        if not self.layer_attentions.loaded:
            self._start_attention()

    def _start_attention(self) -> None:
        if self.zero_init_attention:
            for attention in self.layer_attentions.values():
                attention.start_as_identity()

    def train(self, mode: bool = True) -> nn.Module:
        """Set the mode as the host does."""
        super().train(mode)
        return self


class _LayerDepth:
    """Depths for layer-wise learning rates: an attention has that of the block it follows."""

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """As the host's; what the blocks of a stage share has the depth of its last block."""
        name = r'layer_attentions\.(\d+)\.(?:blocks\.(\d+)\.)?'
        if match := re.match(re.escape(prefix) + name, param_name):
            stage, index = match.groups()
            block = self.attended_blocks[stage][-1 if index is None else int(index)]
            param_name = f'{prefix}{block}.weight'
        return super().get_layer_depth(param_name, prefix)


class _Pyramid:
    """The host's forward pass over ``layers`` of patch embedding, blocks and norm (PVT)."""

    def forward(self, x: Tensor) -> list[Tensor]:
        layers = [list(layer) for layer in self.layers]
        for number, attending in self.attending.items():
            layer = layers[int(number)]
            layer[1] = attending.steps(layer[1], attend_tokens)
        return self.host_forward(Pass(self, layers=layers), x)


class _VisionTransformer:
    """The host's forward pass, with blocks that know the grid of the patches."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if not self.attending:
            return super().forward(x)
        return self.host_forward(_TokenPass(self), x)


class _TokenPass(Pass):
    """One forward pass of a VisionTransformer.

    It calls its blocks with the tokens alone, and only ``patch_embed`` knows their grid.
    """

    def patch_embed(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        model = self.module
        x, grid = model.patch_embed(x)
        attend = partial(attend_tokens, grid=grid, extra_tokens=model.num_extra_tokens)
        self.layers = model.attending['0'].steps(model.layers, attend)
        return x, grid
