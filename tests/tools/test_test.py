"""``tools/test.py``: its options, and what it says to bad input."""

import pickle

import pytest
import torch


def test_writes_predictions_and_pictures(cli, small_run, checkpoint, tmp_path):
    out = tmp_path / 'predictions.pkl'
    assert cli('test', *small_run, checkpoint, '--out', out, '--show-dir', 'pictures')[0] == 0
    predictions = pickle.loads(out.read_bytes())
    assert len(predictions) == 2
    assert predictions[0]['pred_instances']['bboxes'].shape[1] == 4
    assert len(list(tmp_path.glob('run/*/pictures/*.jpg'))) == 2


@pytest.mark.parametrize('rank', [0, 1])
def test_one_process_writes_the_metrics(
    cli, tool, small_run, checkpoint, tmp_path, monkeypatch, rank
):
    """MMEngine's logger does so in every process, all to one file."""
    monkeypatch.setitem(tool('test').__globals__, 'get_rank', lambda: rank)
    assert cli('test', *small_run, checkpoint)[0] == 0
    assert len(list(tmp_path.glob('run/*/*.json'))) == (rank == 0)


def test_test_time_augmentation(cli, small_run, checkpoint, tmp_path):
    options = ['--cfg-options', 'tta_pipeline.1.transforms.0.0.scale=(160,128)']
    options += [f'tta_pipeline.1.transforms.0.{i}.scale=(192,160)' for i in (1, 2)]
    out = tmp_path / 'predictions.pkl'
    assert cli('test', *small_run, checkpoint, '--tta', '--out', out, *options)[0] == 0
    assert len(pickle.loads(out.read_bytes())) == 2


def test_tta_that_the_config_does_not_have(cli, repo, checkpoint):
    code, message = cli('test', repo / 'configs/mask_rcnn_dla_r50.py', checkpoint, '--tta')
    assert code == 2
    assert 'tta_model' in message


def test_no_such_checkpoint(cli, small_run, tmp_path):
    code, message = cli('test', *small_run, tmp_path / 'none.pth')
    assert code == 2
    assert 'none.pth' in message


def test_no_such_config(cli, checkpoint):
    code, message = cli('test', 'nowhere.py', checkpoint)
    assert code == 2
    assert 'nowhere.py' in message


def test_predictions_go_to_a_pickle_file(cli, small_run, checkpoint):
    code, message = cli('test', *small_run, checkpoint, '--out', 'predictions.json')
    assert code == 2
    assert '--out' in message


def test_coco_not_there(cli, repo, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, message = cli('test', repo / 'configs/mask_rcnn_dla_r50.py', checkpoint)
    assert code == 2
    assert str(tmp_path / 'data/coco') in message
    assert 'val2017/' in message
    assert 'train2017/' not in message


def change_nothing_but_one_name(state):
    state['backbone.layer1.attention.other'] = state.pop('backbone.layer1.attention.extract.weight')


def keep_the_backbone(state):
    for name in [name for name in state if not name.startswith('backbone.')]:
        del state[name]


@pytest.mark.parametrize('change', [change_nothing_but_one_name, keep_the_backbone])
def test_checkpoint_of_another_model(cli, small_run, checkpoint, tmp_path, change):
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    change(state)
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict=state), other)
    code, message = cli('test', *small_run, other)
    assert code == 2
    assert str(other) in message
    assert 'missing keys' in message


@pytest.mark.parametrize('keep', [0, 0.5])
def test_broken_checkpoint(cli, small_run, checkpoint, tmp_path, keep):
    broken = tmp_path / 'broken.pth'
    content = checkpoint.read_bytes()
    broken.write_bytes(content[: int(keep * len(content))])
    code, message = cli('test', *small_run, broken)
    assert code == 2
    assert str(broken) in message
