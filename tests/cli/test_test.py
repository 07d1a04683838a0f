"""``tools/test.py``: its options, and what it says to bad input."""

import pickle

import pytest
import torch
from fixtures import save_random_weights
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from mmdla.apis.model import load_model


def test_writes_predictions_and_images(cli, small_run, checkpoint, tmp_path):
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


def test_tta_that_the_config_does_not_have(cli, small_run, checkpoint, tmp_path):
    """Images are flipped, as by MMDetection's own tool; its merging is the host's."""
    argv = ['test', *small_run, checkpoint, '--cfg-options', 'tta_model=None', 'tta_pipeline=None']
    plain, flipped = tmp_path / 'plain.pkl', tmp_path / 'flipped.pkl'
    assert cli(*argv, '--out', plain)[0] == 0
    argv[0] = 'test'
    code, message = cli(*argv[:4], *argv[4:], '--tta', '--out', flipped)
    assert code == 0 and 'no tta_model' in message and 'no tta_pipeline' in message
    first, second = (pickle.loads(path.read_bytes()) for path in (plain, flipped))
    assert len(first) == len(second) == 2
    assert not torch.equal(
        first[0]['pred_instances']['scores'], second[0]['pred_instances']['scores']
    )


def test_tta_of_a_classifier(cli, repo, tiny_cifar, tmp_path):
    """The scores are the mean of those of the image and of its mirror image."""
    root = tiny_cifar(10)
    config = tmp_path / 'cifar.py'
    loader = f'dict(num_workers=0, persistent_workers=False, dataset=dict(data_root={str(root)!r}))'
    config.write_text(f"""
_base_ = {str(repo / 'configs/cifar10_dla_l.py')!r}
test_dataloader = {loader}
""")
    checkpoint = save_random_weights(config, tuple('abcdefghij'))
    out = tmp_path / 'scores.pkl'
    argv = ['test', config, checkpoint, '--work-dir', tmp_path / 'run', '--out', out]
    assert cli(*argv, '--tta')[0] == 0
    cfg = Config.fromfile(config)
    model = load_model(cfg, str(checkpoint))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        dataset = DATASETS.build(cfg.test_dataloader.dataset)
    inputs = torch.stack([item['inputs'] for item in dataset])
    inputs = torch.cat([inputs, inputs.flip(-1)])
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=inputs, data_samples=None))
        scores = model(data['inputs']).softmax(1)
    wanted = scores.view(2, -1, 10).mean(0)
    got = torch.stack([sample['pred_score'] for sample in pickle.loads(out.read_bytes())])
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (change_nothing_but_one_name, 'not in the checkpoint (1): extract.weight'),
        (keep_the_backbone, 'missing keys'),
    ],
)
def test_checkpoint_of_another_model(cli, small_run, checkpoint, tmp_path, change, words):
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    change(state)
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict=state), other)
    code, message = cli('test', *small_run, other)
    assert code == 2
    assert str(other) in message
    assert words in message


@pytest.mark.parametrize('keep', [0, 0.5])
def test_broken_checkpoint(cli, small_run, checkpoint, tmp_path, keep):
    broken = tmp_path / 'broken.pth'
    content = checkpoint.read_bytes()
    broken.write_bytes(content[: int(keep * len(content))])
    code, message = cli('test', *small_run, broken)
    assert code == 2
    assert str(broken) in message
