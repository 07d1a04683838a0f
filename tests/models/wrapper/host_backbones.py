"""Small backbones of the hosts, and how they are built with and without layer attention."""

import copy

import torch
from mmengine.registry import MODELS

ALL = (0, 1, 2, 3)
SWIN = dict(embed_dims=32, depths=[2, 2, 2, 2], num_heads=[1, 2, 4, 8])
REGNET = dict(w0=16, wa=8, wm=1.8, group_w=16, depth=8, bot_mul=1.0)  # 1, 2, 4 and 1 blocks
NARROW = dict(
    depth=50,
    stem_channels=8,
    base_channels=8,
    num_stages=2,
    strides=(1, 2),
    dilations=(1, 1),
    out_indices=(0, 1),
    norm_eval=False,
)
VIT = dict(embed_dims=32, num_layers=5, num_heads=2, feedforward_channels=64)
HOSTS = {
    'mmdet.PyramidVisionTransformerV2': dict(embed_dims=32, num_layers=[2, 2, 2, 2]),
    'mmdet.PyramidVisionTransformer': dict(
        embed_dims=32, num_layers=[2, 1, 1, 2], pretrain_img_size=64
    ),
    'mmdet.SwinTransformer': dict(**SWIN, window_size=4),
    'mmdet.RegNet': dict(arch=REGNET),
    'mmdet.Res2Net': dict(**NARROW, scales=4, base_width=26),
    'mmdet.ResNeSt': dict(**NARROW, reduction_factor=4),
    'mmpretrain.SwinTransformer': dict(arch=SWIN, img_size=64, window_size=2, out_indices=ALL),
    'mmpretrain.ConvNeXt': dict(
        arch=dict(depths=[2, 1, 2, 1], channels=[32, 32, 64, 64]), out_indices=ALL
    ),
    'mmpretrain.RegNet': dict(arch=REGNET, out_indices=ALL),
    'mmpretrain.Res2Net': NARROW,
    'mmpretrain.ResNeSt': NARROW,
    'mmpretrain.VisionTransformer': dict(arch=VIT, img_size=64, out_type='raw'),
    'mmpretrain.DistilledVisionTransformer': dict(arch=VIT, img_size=64),
}
MAPS = ('DLALight', 'DLABase', 'MRLALight', 'MRLABase')
TOKENS = ('MRLALightTokens', 'MRLABaseTokens')


def returns_tokens(name: str) -> bool:
    return 'Transformer' in name


def build_host(name: str, **options):
    """The host's own backbone, initialized."""
    torch.manual_seed(0)
    host = MODELS.build(dict(type=name, **copy.deepcopy(HOSTS[name]), **options))
    host.init_weights()
    host.train()
    return host


def build(name: str, attention: str | None = 'DLALight', host: dict | None = None, **options):
    """The same with layer attention."""
    torch.manual_seed(1)
    cfg = dict(type=name, **{**copy.deepcopy(HOSTS[name]), **(host or {})})
    layer_attention = attention and dict(type=attention, head_channels=16)
    if attention in ('DLALight', 'DLABase'):
        layer_attention['reduction'] = 2  # of so few channels, that none of its ReLUs is silent
    model = MODELS.build(
        dict(type='WithLayerAttention', backbone=cfg, layer_attention=layer_attention, **options)
    )
    model.init_weights()
    return model.train()


def image(seed: int = 0):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def outputs(result) -> list[torch.Tensor]:
    """What a backbone returned, as a flat list."""
    if isinstance(result, torch.Tensor):
        return [result]
    return [out for part in result for out in outputs(part)]


def run(model, seed: int = 0) -> list[torch.Tensor]:
    torch.manual_seed(seed)  # of drop path
    return outputs(model(image(seed)))
