"""Models of the fixtures in ``tests/golden``, built from their JSON alone."""

import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mmdla import DLAResNet, DLAResNet_CIFAR, WithLayerAttention
from mmdla.checkpoint import convert_released

GOLDEN = Path(os.environ.get('MMDLA_GOLDEN') or Path(__file__).parent / 'golden')
ATTENTIONS = {
    'none': None,
    'se': 'SE',
    'eca': 'ECA',
    'dia': 'DIALSTM',
    'mrla_l': 'MRLALight',
    'mrla_b': 'MRLABase',
    'dla_l': 'DLALight',
    'dla_b': 'DLABase',
    'kcla': 'KCLA',
    'rla': 'RLA',
}


def names() -> list[str]:
    """Every fixture in the folder."""
    return sorted(path.stem for path in GOLDEN.glob('*.json'))


@dataclass
class Fixture:
    """One fixture: its description, its numbers and the released state dict."""

    name: str

    def __post_init__(self) -> None:
        self.json = json.loads((GOLDEN / f'{self.name}.json').read_text())
        self.numbers = dict(np.load(GOLDEN / f'{self.name}.npz'))
        fill = _load_fill()
        self.released = {
            name: torch.from_numpy(np.asarray(fill.fill(name, shape)))
            for name, shape in self.json['state_dict']
        }
        for name, values in (self.json.get('constants') or {}).items():
            shape = self.released[name].shape
            self.released[name] = torch.tensor(values, dtype=torch.float32).reshape(shape)
        self.image = fill.image

    def input(self) -> Tensor:
        return torch.from_numpy(self.image(f'input:{self.name}', self.json['input_shape']))

    def cotangent(self, shape) -> Tensor:
        return torch.from_numpy(self.image(f'cotangent:{self.name}', shape))


class Classifier(nn.Module):
    """Backbone, global average pooling and one linear layer, with the released names."""

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.fc = nn.Linear(backbone.feat_dim, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.fc(self.backbone(x)[-1].mean((2, 3))),)


class TokenClassifier(Classifier):
    """The same on the class token of a vision transformer."""

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        backbone.feat_dim = backbone.embed_dims
        super().__init__(backbone, num_classes)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.fc(self.backbone(x)[-1]),)


def build_vit(spec: dict) -> nn.Module:
    """The vision transformer that a fixture's JSON describes."""
    width = spec['embed_dim']
    arch = dict(
        embed_dims=width,
        num_layers=spec['depth'],
        num_heads=spec['num_heads'],
        feedforward_channels=int(width * spec['mlp_ratio']),
    )
    sizes = dict(img_size=spec['img_size'], patch_size=spec['patch_size'])
    kind = ATTENTIONS[spec['attention']]
    backbone = WithLayerAttention(
        dict(type='mmpretrain.VisionTransformer', arch=arch, **sizes),
        kind and dict(type=f'{kind}Tokens', head_channels=spec['head_channels']),
        zero_init_attention=False,
    )
    classes = spec['num_classes']
    return backbone if classes is None else TokenClassifier(backbone, classes)


def attention_cfg(spec: dict) -> dict | None:
    """Config of the layer attention that a fixture's JSON describes."""
    kind = ATTENTIONS[spec['attention']]
    attention = kind and dict(type=kind)
    if spec['reduction'] is not None:
        attention['reduction'] = spec['reduction']
    if spec['attention'] in ('dla_l', 'dla_b'):
        attention['context'] = 'first'  # in the authors' code one sample refreshes the whole batch
    if (spec['source'], spec['attention']) == ('imagenet', 'mrla_b'):
        attention['head_channels'] = 16
    if spec['attention'] == 'kcla':
        attention['head_channels'] = spec['head_channels']
        attention['restart_block'] = None if spec['source'] == 'cifar' else 11
    if spec['attention'] == 'rla':
        attention['hidden_channels'] = spec['rla_channel']
        attention['eca'] = bool(spec['eca'])
        attention['append_state'] = any(name == 'bn2.weight' for name, _ in spec['state_dict'])
    return attention


def build(spec: dict) -> nn.Module:
    """The model that a fixture's JSON describes."""
    if spec['source'] == 'deit':
        return build_vit(spec)
    args = dict(depth=spec['depth'], layer_attention=attention_cfg(spec))
    if spec['source'] == 'cifar':
        backbone = DLAResNet_CIFAR(**args, block=spec['block'])
    else:
        timm_stem = any(name == 'conv1.0.weight' for name, _ in spec['state_dict'])
        backbone = DLAResNet(**args, deep_stem=timm_stem)
    if spec['num_classes'] is None:
        return backbone
    return Classifier(backbone, spec['num_classes'])


def convert(fixture: Fixture, model: nn.Module) -> dict[str, Tensor]:
    """The released checkpoint under the model's names, and nothing left over."""
    state = convert_released(fixture.released)
    if isinstance(model, Classifier):
        state = {k if k.startswith('fc.') else f'backbone.{k}': v for k, v in state.items()}
    return state


def _load_fill():
    spec = importlib.util.spec_from_file_location('golden_fill', GOLDEN / 'fill.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
