"""The detectors around other backbones train and evaluate on a tiny data set in COCO's layout."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from test_coco_configs import options_for

CONFIGS = ['faster_rcnn_dla_pvtv2_b1', 'faster_rcnn_dla_swin_t']


@pytest.fixture
def small(repo, tmp_path):
    """``small(name)`` is a config of the same backbone, narrow, with weights of the host."""

    def make(name: str):
        cfg = Config.fromfile(repo / f'configs/{name}.py')
        host = cfg.model.backbone.backbone
        host.embed_dims //= 2 if 'pvt' in name else 3
        if 'swin' in name:
            host.num_heads = [1, 2, 4, 8]
        cfg.model.neck.in_channels = [32, 64, 160 if 'pvt' in name else 128, 256]
        host.convert_weights = False
        host.init_cfg.checkpoint = str(tmp_path / 'host.pth')
        plain = {**host, 'init_cfg': None, 'type': f'mmdet.{host.type}'}
        torch.manual_seed(0)
        weights = MODELS.build(plain).state_dict()
        # the host's Swin reads those of a detector
        prefix = 'backbone.' if 'swin' in name else ''
        torch.save({f'{prefix}{n}': v for n, v in weights.items()}, host.init_cfg.checkpoint)
        cfg.dump(tmp_path / f'{name}.py')
        return tmp_path / f'{name}.py', plain, weights

    return make


@pytest.mark.parametrize('name', CONFIGS)
def test_starts_as_the_host_with_its_weights(name, small):
    config, plain, weights = small(name)
    cfg = Config.fromfile(config)
    backbone = MODELS.build({**cfg.model.backbone, '_scope_': 'mmdet'})
    backbone.init_weights()
    host = MODELS.build(plain)
    host.load_state_dict(weights)
    host.eval()
    x = torch.rand(1, 3, 64, 96)
    for ours, theirs in zip(backbone.eval()(x), host(x), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_evaluates(name, small, tool, tiny_coco, tmp_path):
    config, _, weights = small(name)
    # no option for the weights, which are another argument here
    options = options_for(name, tiny_coco, tmp_path, tmp_path)[1:]
    argv = [str(config), '--work-dir', str(tmp_path / 'train'), '--cfg-options', *options]
    tool('train')(argv)
    (log,) = tmp_path.glob('train/*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    losses = [row['loss'] for row in rows if 'loss' in row]
    assert len(losses) == 2 and all(0 < loss < 1000 for loss in losses), losses
    assert -1 <= rows[-1]['coco/bbox_mAP'] <= 100
    trained = torch.load(tmp_path / 'train/epoch_1.pth', weights_only=False)['state_dict']
    ours = {n.removeprefix('backbone.') for n in trained if n.startswith('backbone.')}
    assert {n for n in ours if not n.startswith('layer_attentions.')} == set(weights)


def test_the_hosts_own_tool(small, run_process, tiny_coco, tmp_path):
    """Where MMPretrain is not installed."""
    name = CONFIGS[1]
    options = options_for(name, tiny_coco, tmp_path, tmp_path)[1:]
    argv = ['mmdet', 'mmpretrain', str(small(name)[0]), '--work-dir', str(tmp_path / 'host')]
    result = run_process('tests/integration/host_train.py', *argv, '--cfg-options', *options)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / 'host/epoch_1.pth').exists() and 'coco/bbox_mAP' in result.stdout


def test_mmpretrains_own_tool(repo, run_process, tiny_imagenet, tmp_path):
    """Where MMDetection is not installed."""
    options = ['train_cfg.max_epochs=1', 'param_scheduler.1.begin=0']
    for split in ('train', 'val'):
        loader = f'{split}_dataloader'
        options += [
            f'{loader}.batch_size=2',
            f'{loader}.num_workers=0',
            f'{loader}.persistent_workers=False',
            f'{loader}.dataset.data_root={tiny_imagenet}',
            f'{loader}.dataset.ann_file=meta/{split}.txt',
        ]
    config = repo / 'configs/imagenet_mrla_b_deit_tiny.py'
    argv = ['mmpretrain', 'mmdet', str(config), '--work-dir', str(tmp_path), '--cfg-options']
    result = run_process('tests/integration/host_train.py', *argv, *options)
    assert result.returncode == 0, result.stderr
    assert 'accuracy/top1' in result.stdout
