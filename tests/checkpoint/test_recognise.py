"""Released checkpoints are recognised and converted, and anything else is refused."""

import golden_models
import pytest
import torch
from mmengine.registry import MODELS

from mmdla.checkpoint import CheckpointError, convert_checkpoint, read_state_dict
from mmdla.checkpoint.recognise import _reduction
from mmdla.cli import convert_checkpoint as convert_checkpoint_tool

NAMES = [name for name in golden_models.names() if not name.startswith('dsu')]


def wrappings(state):
    return {
        'bare': state,
        'state_dict': {'epoch': 3, 'arch': 'x', 'state_dict': state, 'optimizer': {'lr': 0.1}},
        'model': {'model': {f'module.{name}': v for name, v in state.items()}, 'scaler': None},
    }


@pytest.mark.parametrize('wrapping', ['bare', 'state_dict', 'model'])
@pytest.mark.parametrize('name', ['cifar_dla_l_20', 'deit_mrla_l_tiny'])
def test_wrapped_in_any_way(tmp_path, name, wrapping):
    released = golden_models.Fixture(name).released
    source, target = tmp_path / 'released.pth', tmp_path / 'ours.pth'
    torch.save(wrappings(released)[wrapping], source)
    convert_checkpoint_tool.main([str(source), str(target)])
    got, expected = read_state_dict(target), convert_checkpoint(released)[1]
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize('name', NAMES)
def test_every_release(tmp_path, capsys, name):
    fixture = golden_models.Fixture(name)
    source, target = tmp_path / 'released.pth', tmp_path / 'ours.pth'
    torch.save({'state_dict': fixture.released}, source)
    convert_checkpoint_tool.main([str(source), str(target)])
    assert f'-{fixture.json["depth"]} ' in capsys.readouterr().out

    release, _ = convert_checkpoint(fixture.released)
    kind = golden_models.ATTENTIONS[fixture.json['attention']]
    vit = fixture.json['source'] == 'deit'
    if vit:
        kind += 'Tokens'
    assert (release.attention, release.depth, release.block, release.num_classes) == (
        kind, fixture.json['depth'], fixture.json['block'], fixture.json['num_classes'],
    )  # fmt: skip
    if kind in ('KCLA', 'RLA'):
        default = dict(eca=False, append_state=False) if kind == 'RLA' else dict(restart_block=11)
        expected = golden_models.attention_cfg(fixture.json)
        assert dict(type=kind) | default | release.options == expected
    if fixture.json['reduction']:
        assert release.reduction == fixture.json['reduction']
    converted = read_state_dict(target)
    backbone = MODELS.build(release.backbone_cfg())
    own = {
        n.removeprefix('backbone.'): v for n, v in converted.items() if n.startswith('backbone.')
    }
    backbone.load_state_dict(own, strict=True)
    if release.num_classes:
        ours, theirs = ('head.layers.head', 'head') if vit else ('head.fc', 'fc')
        assert torch.equal(converted[f'{ours}.weight'], fixture.released[f'{theirs}.weight'])


def released_vit(change=lambda state: None):
    state = dict(golden_models.Fixture('deit_mrla_l_tiny').released)
    change(state)
    return state


def test_a_converted_vision_transformer_is_the_backbone_of_a_classifier():
    release, converted = convert_checkpoint(released_vit())
    head = dict(type='mmpretrain.VisionTransformerClsHead', num_classes=10, in_channels=192)
    model = dict(type='mmpretrain.ImageClassifier', backbone=release.backbone_cfg(), head=head)
    MODELS.build(model).load_state_dict(converted, strict=True)


def test_a_plain_vision_transformer_has_no_layer_attention():
    plain = {name: v for name, v in released_vit().items() if '.mrla.' not in name}
    release, converted = convert_checkpoint(plain)
    assert release.attention is None and 'no layer attention' in str(release)
    assert len(converted) == len(plain)


VIT_DAMAGES = {
    'missing': (lambda s: s.pop('blocks.3.mrla.normx.bias'), r'missing.*0\.blocks\.3\.norm_x\.bias'),
    'unknown': (lambda s: s.update(dist_token=torch.zeros(1, 1, 192)), 'unknown.*dist_token'),
    'nan': (lambda s: s.update({'norm.bias': torch.full((192,), torch.nan)}), r'NaN.*ln1\.bias'),
    'patches': (lambda s: s.pop('patch_embed.proj.weight'), 'without patch embedding'),
    'positions': (lambda s: s.pop('pos_embed'), 'without patch embedding, position'),
    'blocks': (lambda s: s.pop('blocks.0.mlp.fc1.weight'), 'without patch embedding, position embedding or blocks'),
    'head': (lambda s: s.update({'head.weight': torch.zeros(10, 5)}), 'no linear classifier'),
    'half a head': (lambda s: s.pop('head.weight'), 'no linear classifier'),
    'head bias': (lambda s: s.update({'head.bias': torch.zeros(5)}), 'no linear classifier'),
    'head of integers': (lambda s: s.update({'head.bias': torch.zeros(10, dtype=torch.int)}), 'no linear classifier'),
    'head nan': (lambda s: s.update({'head.weight': torch.full((10, 192), torch.nan)}), 'no linear classifier'),
}  # fmt: skip


@pytest.mark.parametrize('case', VIT_DAMAGES)
def test_damaged_vision_transformers_are_refused(case):
    change, words = VIT_DAMAGES[case]
    with pytest.raises(CheckpointError, match=words):
        convert_checkpoint(released_vit(change))


@pytest.mark.parametrize('lost', [['head.bias'], ['head.bias', 'head.weight']], ids=len)
def test_vision_transformers_with_less_of_a_head(lost):
    release, converted = convert_checkpoint(released_vit(lambda s: [s.pop(name) for name in lost]))
    assert release.attention is not None
    assert sum(name.startswith('head.') for name in converted) == 2 - len(lost)


@pytest.mark.parametrize('inner', ['mla', 'la'])
def test_older_names_of_mrla(inner):
    """Its classification and detection files name the layer inside of ``mrla`` differently."""
    released = golden_models.Fixture('cifar_mrla_l_20').released
    older = {name.replace('.mrla.mrla.', f'.mrla.{inner}.'): v for name, v in released.items()}
    assert older.keys() != released.keys()
    release, converted = convert_checkpoint(older)
    assert release.attention == 'MRLALight'
    assert converted.keys() == convert_checkpoint(released)[1].keys()


@pytest.mark.parametrize('reduction', [1, 2, 15, 16])
def test_any_reduction(reduction):
    """Up to the channels of the first stage; of those that fit the least one."""
    widths = {1: 16, 2: 32, 3: 64, 4: 128}
    squeezes = {
        f'layer{i}.attention.dsu.from_y.0.weight': torch.zeros(channels // reduction, channels)
        for i, channels in widths.items()
    }
    found = _reduction(squeezes, 4)
    assert all(c // found == c // reduction for c in widths.values()) and found <= reduction
    assert _reduction({}, 4) is None


def test_the_rest_of_a_detector_is_kept():
    fixture = golden_models.Fixture('mmdet_dla_l_50')
    state = {f'backbone.{name}': v for name, v in fixture.released.items()}
    state['neck.fpn_convs.0.conv.weight'] = torch.ones(3)
    _, converted = convert_checkpoint(state)
    assert converted['neck.fpn_convs.0.conv.weight'] is state['neck.fpn_convs.0.conv.weight']


def damaged(change):
    state = dict(golden_models.Fixture('cifar_dla_l_20').released)
    change(state)
    return state


DAMAGES = {
    'missing': (lambda s: s.pop('stages.1.excite.weight'), r'missing.*layer2\.attention\.extract'),
    'shape': (lambda s: s.update({'fc.weight': s['fc.weight'], 'conv1.weight': torch.zeros(16, 3, 5, 5)}), r'other shapes.*conv1\.weight \(16, 3, 5, 5\)'),
    'unknown': (lambda s: s.update({'stages.0.extra.weight': torch.zeros(1)}), r'unknown.*layer1\.extra'),
    'nan': (lambda s: s.update({'bn1.weight': torch.full((16,), torch.nan)}), r'NaN.*bn1\.weight'),
    'squeeze': (lambda s: s.update({'stages.0.lstm.w_ih.0.seq.0.weight': torch.zeros(5, 64)}), 'no reduction'),
    'foreign': (lambda s: (s.clear(), s.update({'encoder.weight': torch.zeros(2)})), 'no ResNet in it.*encoder'),
    'depth': (lambda s: [s.pop(n) for n in list(s) if n.startswith('stages.0.layers.1.')], 'which cannot be.*depth'),
}  # fmt: skip


CARRIED_DAMAGES = {
    'missing': ('cifar_kcla_20', lambda s: s.pop('stages.1.1.kcla.Wv.weight'), r'missing.*layer2\.attention\.blocks\.1\.value'),
    'restart': ('cifar_kcla_20', lambda s: s.pop('stages.1.0.kcla.u_Wk.weight'), r'missing.*blocks\.0\.restart\.key'),
    'shape': ('cifar_kcla_20', lambda s: s.update({'stages.0.0.kcla.head_att.weight': torch.zeros(3, 3)}), 'which cannot be.*head_channels'),
    'twice': ('cifar_kcla_20', lambda s: s.update({'layer1.0.conv1.weight': s['stages.0.0.conv1.weight']}), r'same weight, layer1\.0\.conv1'),
    'recurrent': ('imagenet_rla_50', lambda s: s.update({'recurrent_convs.0.weight': torch.zeros(())}), 'not a released model'),
    'norm': ('imagenet_rla_50', lambda s: s.pop('stage_bns.2.3.bias'), r'missing.*layer3\.attention\.norms\.3'),
}  # fmt: skip


@pytest.mark.parametrize('case', CARRIED_DAMAGES)
def test_damaged_checkpoints_whose_state_crosses_stages(case):
    name, change, words = CARRIED_DAMAGES[case]
    state = dict(golden_models.Fixture(name).released)
    change(state)
    with pytest.raises(CheckpointError, match=words):
        convert_checkpoint(state)


@pytest.mark.parametrize('case', DAMAGES)
def test_damaged_checkpoints_leave_nothing(repo, run_process, tmp_path, case):
    change, words = DAMAGES[case]
    source, target = tmp_path / 'released.pth', tmp_path / 'ours.pth'
    torch.save(damaged(change), source)
    content = source.read_bytes()
    with pytest.raises(CheckpointError, match=words):
        convert_checkpoint(read_state_dict(source))
    if case == 'missing':
        result = run_process('tools/convert_checkpoint.py', str(source), str(target))
        assert result.returncode == 2 and 'missing' in result.stderr
        assert 'Traceback' not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ['released.pth']
    assert source.read_bytes() == content
