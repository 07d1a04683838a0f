"""Every distinct ResNet of the installed config zoos, with the one word changed."""

import copy
import functools
import importlib
import pickle
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmdla.checkpoint.names import to_our_names

WORDS = ('ResNet', 'ResNetV1c', 'ResNetV1d', 'ResNeXt')
# by scope, what the host itself cannot build: S2ANet for HRSC names a ResNet of MMRotate
WRONG_IN_THE_ZOO = dict(mmrotate=['ResNet'])
# what the host's own wheel has no base for: it inherits from mmpose.configs, which is not in it
UNREADABLE = dict(mmpose=['edpose_res50_8xb2-50e_coco-800x1333.py'])
LEAST = dict(mmdet=70, mmpretrain=24, mmseg=22, mmrotate=3, mmpose=5)  # distinct ones there
SCOPES = [scope for scope in LEAST if find_spec(scope)]
DEFAULTS = (
    'norm_eval', 'out_indices', 'stem_channels', 'base_channels', 'zero_init_residual', 'style',
    'frozen_stages', 'strides', 'dilations', 'deep_stem', 'avg_down', 'with_cp', 'num_stages',
)  # fmt: skip
NOT_OF_THE_NETWORK = ('init_cfg', 'pretrained', 'with_cp')


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


@pytest.fixture
def bases_read_once(monkeypatch):
    """MMEngine reads the same bases for hundreds of files."""
    read, results = Config._file2dict, {}

    def remembered(filename, *args, **kwargs):
        key = str(Path(filename).resolve())
        if key not in results:
            results[key] = pickle.dumps(read(filename, *args, **kwargs))
        return pickle.loads(results[key])

    monkeypatch.setattr(Config, '_file2dict', staticmethod(remembered))


def written_files(root: Path) -> list[Path]:
    """Files that say something about a backbone and that have a ResNet, or a base has.

    A file that does not speak of a backbone has that of a base, which is a file of the zoo too.
    """
    texts = {path: path.read_text(encoding='utf-8') for path in sorted(root.rglob('*.py'))}

    @functools.cache
    def has_resnet(path: Path) -> bool:
        bases = re.findall(r"""['"]([\w./+-]+\.py)['"]""", texts[path])
        bases = [(path.parent / base).resolve() for base in bases]
        return 'ResNe' in texts[path] or any(b in texts and has_resnet(b) for b in bases)

    return [path for path in texts if 'backbone' in texts[path] and has_resnet(path)]


def zoo(scope: str) -> tuple[list[dict], list[str]]:
    """Distinct ResNets of a zoo, and files that cannot be read."""
    root = Path(importlib.import_module(scope).__file__).resolve().parent / '.mim/configs'
    found, unreadable = {}, []
    for path in written_files(root):
        try:
            cfg, _, _ = Config._file2dict(str(path))
        except Exception as error:
            if path.name not in UNREADABLE.get(scope, ()):
                said = f'{type(error).__name__}: {error}'
                unreadable.append(f'{path.relative_to(root)}: {said}')
            continue
        for backbone in backbones_in(cfg):
            backbone = {k: v for k, v in backbone.items() if k not in NOT_OF_THE_NETWORK}
            if inner := backbone.pop('_scope_', None):
                backbone['type'] = f'{inner}.{backbone["type"]}'
            found.setdefault(repr(sorted(backbone.items())), backbone)
    return list(found.values()), unreadable


def narrow(args: dict) -> dict:
    """The same with an eighth of the channels, or as many as group norm needs."""
    groups = (args.get('norm_cfg') or {}).get('num_groups', 1)
    return {**copy.deepcopy(args), 'base_channels': max(args.get('base_channels', 64) // 8, groups)}


def compare(scope: str, written: dict) -> None:
    """Assert that ours is the host's, by its defaults, its weights and its numbers."""
    args = narrow(written)
    inner, _, word = args.pop('type').rpartition('.')
    with MODELS.switch_scope_and_registry(None) as registry:
        host = registry.build({**args, 'type': written['type']})
        # MMPretrain's in a config of MMDetection: _scope_ says whose the defaults are
        other = dict(_scope_=inner) if inner not in ('', scope) else {}
        ours = {**args, 'type': f'mmdla.DLA{word}', 'layer_attention': None, **other}
        ours = registry.build(ours)
    for name in DEFAULTS:
        expected = getattr(host, name, None)
        if expected is not None:
            got = getattr(ours, name)
            assert got == (tuple(expected) if isinstance(expected, list) else expected), name
    of_host = to_our_names(host.state_dict(keep_vars=True), ours.avg_down)
    learning = {n for n, p in ours.named_parameters() if p.requires_grad}
    assert learning == {n for n, p in of_host.items() if p.requires_grad}
    ours.load_state_dict(to_our_names(host.state_dict(), ours.avg_down), strict=True)
    host.eval()  # returns None in MMDetection
    ours.eval()
    size = (96, 128) if args.get('dcn') else (32, 64)  # no map smaller than a DCN's kernel
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        try:
            expected = host(x)
        except ValueError as error:  # PyTorch's to eps=0, from 2.10 on
            assert args['norm_cfg']['eps'] == 0
            with pytest.raises(ValueError, match=re.escape(str(error))):
                ours(x)
            return
        got = ours(x)
    assert len(expected) == len(got) > 0
    for a, b in zip(expected, got, strict=True):
        assert a.isfinite().all() and a.shape == b.shape and torch.equal(a, b)


@pytest.mark.parametrize('scope', SCOPES)
def test_one_word_changes(scope, bases_read_once):
    """The host's defaults, shapes and numbers, all of the zoo's files being read."""
    importlib.import_module(f'{scope}.models')
    torch.manual_seed(0)
    backbones, unreadable = zoo(scope)
    assert not unreadable
    assert len(backbones) >= LEAST[scope]
    different, wrong = {}, []
    with DefaultScope.overwrite_default_scope(scope):
        for backbone in backbones:
            try:
                compare(scope, backbone)
            except KeyError as error:
                assert f'{backbone["type"]} is not in the ' in str(error)
                wrong.append(backbone['type'])
            except Exception as error:
                different[repr(backbone)] = f'{type(error).__name__}: {error}'
    assert wrong == WRONG_IN_THE_ZOO.get(scope, [])
    assert not different, '\n'.join(f'{key}: {text}' for key, text in different.items())
