"""Released checkpoints are recognised and converted, and anything else is refused."""

import importlib.util

import golden_models
import pytest
import torch
from mmengine.registry import MODELS

from mmdla.checkpoint import CheckpointError, convert_checkpoint, read_state_dict

NAMES = [name for name in golden_models.names() if not name.startswith('dsu')]


def wrappings(state):
    return {
        'bare': state,
        'state_dict': {'epoch': 3, 'arch': 'x', 'state_dict': state, 'optimizer': {'lr': 0.1}},
        'model': {'model': {f'module.{name}': v for name, v in state.items()}, 'scaler': None},
    }


@pytest.mark.parametrize('wrapping', ['bare', 'state_dict', 'model'])
@pytest.mark.parametrize('name', NAMES)
def test_every_release(repo, tmp_path, capsys, name, wrapping):
    fixture = golden_models.Fixture(name)
    source, target = tmp_path / 'released.pth', tmp_path / 'ours.pth'
    torch.save(wrappings(fixture.released)[wrapping], source)
    spec = importlib.util.spec_from_file_location('convert', repo / 'tools/convert_checkpoint.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main([str(source), str(target)])
    assert f'-{fixture.json["depth"]} ' in capsys.readouterr().out

    release, _ = convert_checkpoint(fixture.released)
    kind = golden_models.ATTENTIONS[fixture.json['attention']]
    assert (release.attention, release.depth, release.block, release.num_classes) == (
        kind, fixture.json['depth'], fixture.json['block'], fixture.json['num_classes'],
    )  # fmt: skip
    if fixture.json['reduction']:
        assert release.reduction == fixture.json['reduction']
    converted = read_state_dict(target)
    backbone = MODELS.build(release.backbone_cfg())
    own = {
        n.removeprefix('backbone.'): v for n, v in converted.items() if n.startswith('backbone.')
    }
    backbone.load_state_dict(own, strict=True)
    if release.num_classes:
        assert torch.equal(converted['head.fc.weight'], fixture.released['fc.weight'])


@pytest.mark.parametrize('inner', ['mla', 'la'])
def test_older_names_of_mrla(inner):
    """Its classification and detection files name the layer inside of ``mrla`` differently."""
    released = golden_models.Fixture('cifar_mrla_l_20').released
    older = {name.replace('.mrla.mrla.', f'.mrla.{inner}.'): v for name, v in released.items()}
    assert older.keys() != released.keys()
    release, converted = convert_checkpoint(older)
    assert release.attention == 'MRLALight'
    assert converted.keys() == convert_checkpoint(released)[1].keys()


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
