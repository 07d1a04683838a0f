"""Every ResNet of the installed config zoos, with the one word changed."""

import copy
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdla.checkpoint.names import to_our_names

WORDS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
LEAST = dict(mmdet=20, mmpretrain=8, mmseg=10, mmrotate=2, mmpose=5)  # distinct ones there
SCOPES = [scope for scope in LEAST if find_spec(scope)]
BASES = ('norm_eval', 'out_indices', 'stem_channels', 'zero_init_residual', 'frozen_stages',
         'strides', 'dilations', 'style', 'deep_stem', 'avg_down')  # fmt: skip


def backbones_in(value):
    """The ResNets anywhere in a config."""
    if isinstance(value, dict):
        kind = value.get('type')
        if isinstance(kind, str) and kind.split('.')[-1] in WORDS and 'depth' in value:
            yield value
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for entry in value:
            yield from backbones_in(entry)


def zoo(scope):
    """Distinct ResNets of a zoo: read from the files as they are, without their bases' other parts."""
    root = Path(importlib.import_module(scope).__file__).parent / '.mim/configs'
    found = {}
    for path in sorted(root.rglob('*.py')):
        if 'ResN' not in path.read_text() or path.parts[-2] == 'dsdl':
            continue
        try:
            cfg = Config.fromfile(path, import_custom_modules=False, lazy_import=False)
        except Exception:  # needs a package or a file that is not there
            continue
        for backbone in backbones_in(cfg.to_dict()):
            if inner := backbone.pop('_scope_', None):
                backbone['type'] = f'{inner}.{backbone["type"]}'
            for key in ('init_cfg', 'pretrained', 'with_cp', 'base_channels'):
                backbone.pop(key, None)
            if 'depth' in backbone:
                found.setdefault(repr(sorted(backbone.items(), key=lambda kv: kv[0])), backbone)
    return list(found.values())


@pytest.mark.parametrize('scope', SCOPES)
def test_one_word_changes(scope):
    """The host's defaults, shapes and numbers."""
    importlib.import_module(f'{scope}.models')
    tried = 0
    with DefaultScope.overwrite_default_scope(scope):
        for backbone in zoo(scope):
            args = copy.deepcopy(backbone)
            if (args.get('norm_cfg') or {}).get('type') in ('SyncBN', 'MMSyncBN'):
                args['norm_cfg']['type'] = 'BN'  # SyncBN trains on GPUs alone
            args['depth'] = {101: 50, 152: 50}.get(args['depth'], args['depth'])
            if 'base_channels' not in args and 'groups' not in args:
                args['base_channels'] = 32  # for GN's 32 groups
            prefix, word = ([*args['type'].split('.')][:-1], args['type'].split('.')[-1])
            with MODELS.switch_scope_and_registry(None) as registry:
                torch.manual_seed(0)
                host = registry.build(args)
                ours = registry.build({**args, 'type': f'mmdla.DLA{word}', 'layer_attention': None})
            assert prefix in ([], [scope], ['mmdet'], ['mmpretrain'], ['mmcls'])
            for name in BASES:
                if getattr(host, name, None) is not None:
                    theirs, our = getattr(host, name), getattr(ours, name)
                    assert our == (tuple(theirs) if isinstance(theirs, list) else theirs), name
            ours.load_state_dict(to_our_names(host.state_dict(), ours.avg_down), strict=True)
            x = torch.randn(1, 3, 96, 96)
            host.eval()  # returns None in MMDetection
            ours.eval()
            with torch.no_grad():
                expected, got = host(x), ours(x)
            assert len(expected) == len(got) > 0, args
            assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True)), args
            tried += 1
    assert tried >= LEAST[scope]
