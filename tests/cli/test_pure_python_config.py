"""Configs whose ``type`` is a class, as MMDetection 3 ships such, go through every tool."""

import json
import pickle
from pathlib import Path

import pytest
import torch

DINER = Path(__file__).parents[1] / 'data/diner/photo.jpg'
CONFIG = """
from mmcv.transforms import LoadImageFromFile, RandomFlip, TestTimeAug
from mmdet.datasets import AspectRatioBatchSampler, CocoDataset
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, Resize
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.evaluation import CocoMetric
from mmdet.models import (
    FPN, DetDataPreprocessor, DetTTAModel, FocalLoss, L1Loss, RetinaHead, RetinaNet)
from mmdet.models.task_modules import (
    AnchorGenerator, DeltaXYWHBBoxCoder, MaxIoUAssigner, PseudoSampler)
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import DefaultSampler
from mmengine.hooks import CheckpointHook, IterTimerHook, LoggerHook, RuntimeInfoHook
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, TestLoop, ValLoop
from mmengine.visualization import LocalVisBackend
from torch.nn import BatchNorm2d
from torch.optim import SGD

from mmdla import DLALight, DLAResNet

ROOT = {root!r}
classes = ('person', 'bicycle')
model = dict(
    type=RetinaNet,
    data_preprocessor=dict(type=DetDataPreprocessor, bgr_to_rgb=True, pad_size_divisor=32),
    backbone=dict(
        type=DLAResNet, depth=18, base_channels=8, frozen_stages=-1, norm_cfg=dict(type='BN'),
        layer_attention=dict(type=DLALight, reduction=4, head_channels=8)),
    neck=dict(
        type=FPN, in_channels=[8, 16, 32, 64], out_channels=16, start_level=1,
        add_extra_convs='on_input', num_outs=5),
    bbox_head=dict(
        type=RetinaHead, num_classes=80, in_channels=16, feat_channels=16, stacked_convs=1,
        anchor_generator=dict(
            type=AnchorGenerator, octave_base_scale=4, scales_per_octave=1, ratios=[1.0],
            strides=[8, 16, 32, 64, 128]),
        bbox_coder=dict(type=DeltaXYWHBBoxCoder),
        loss_cls=dict(type=FocalLoss), loss_bbox=dict(type=L1Loss)),
    train_cfg=dict(
        assigner=dict(type=MaxIoUAssigner, pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
                      ignore_iof_thr=-1),
        sampler=dict(type=PseudoSampler), allowed_border=-1, pos_weight=-1, debug=False),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.0,
                  nms=dict(type='nms', iou_threshold=0.5), max_per_img=10),
)
steps = [
    dict(type=LoadImageFromFile),
    dict(type=LoadAnnotations, with_bbox=True),
    dict(type=Resize, scale=(160, 120), keep_ratio=True),
]
pack = dict(
    type=PackDetInputs,
    meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'flip',
               'flip_direction'))
train_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=True),
    batch_sampler=dict(type=AspectRatioBatchSampler),
    dataset=dict(type=CocoDataset, data_root=ROOT, ann_file='annotations/instances_train2017.json',
                 data_prefix=dict(img='train2017/'), pipeline=[*steps, dict(type=PackDetInputs)]))
val_dataloader = dict(
    batch_size=1, num_workers=0, sampler=dict(type=DefaultSampler, shuffle=False),
    dataset=dict(type=CocoDataset, data_root=ROOT, ann_file='annotations/instances_val2017.json',
                 data_prefix=dict(img='val2017/'), test_mode=True, pipeline=[*steps, pack]))
test_dataloader = val_dataloader
val_evaluator = dict(type=CocoMetric, metric='bbox',
                     ann_file=ROOT + '/annotations/instances_val2017.json')
test_evaluator = val_evaluator
randomness = dict(seed=0)
train_cfg = dict(type=EpochBasedTrainLoop, max_epochs=1)
val_cfg = dict(type=ValLoop)
test_cfg = dict(type=TestLoop)
optim_wrapper = dict(type=OptimWrapper, optimizer=dict(type=SGD, lr=1e-6))
default_hooks = dict(
    runtime_info=dict(type=RuntimeInfoHook), timer=dict(type=IterTimerHook),
    logger=dict(type=LoggerHook, interval=1), checkpoint=dict(type=CheckpointHook, interval=1),
    visualization=dict(type=DetVisualizationHook))
visualizer = dict(type=DetLocalVisualizer, name='visualizer',
                  vis_backends=[dict(type=LocalVisBackend)])
tta_model = dict(type=DetTTAModel, tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5),
                                                max_per_img=10))
tta_pipeline = [
    dict(type=LoadImageFromFile),
    dict(type=TestTimeAug, transforms=[
        [dict(type=Resize, scale=(160, 120), keep_ratio=True)],
        [dict(type=RandomFlip, prob=1.0), dict(type=RandomFlip, prob=0.0)], [pack]]),
]
"""


@pytest.fixture(scope='module')
def config(tiny_coco, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('pure') / 'detector.py'
    path.write_text(CONFIG.replace('{root!r}', repr(str(tiny_coco))))
    return path


def test_every_tool(cli, tool, config, tmp_path, capsys):
    """There is no ``default_scope``: the library is known from the class of the model."""
    run = ['--work-dir', tmp_path / 'run']
    code, message = cli('train', config, *run)
    assert code == 0, message
    log = next((tmp_path / 'run').glob('*/*.log')).read_text()
    for name in ('AtomicCheckpointHook', 'FiniteLossHook', 'Validation tried with one batch'):
        assert name in log
    checkpoint = tmp_path / 'run/epoch_1.pth'
    assert 'bbox_head.retina_cls.weight' in torch.load(checkpoint, weights_only=False)['state_dict']

    out = tmp_path / 'out.pkl'
    code, message = cli('test', config, checkpoint, *run, '--tta', '--out', out)
    assert code == 0, message
    assert len(pickle.loads(out.read_bytes())) == 2
    shown = ['--show-dir', 'images', '--cfg-options', 'tta_model=None', 'tta_pipeline=None']
    code, message = cli('test', config, checkpoint, *run, '--tta', *shown)
    assert code == 0, message
    assert len(list(tmp_path.glob('run/*/images/*.jpg'))) == 2

    code, message = cli('predict', config, checkpoint, DINER, '--out', tmp_path / 'predicted')
    assert code == 0, message
    report = json.loads((tmp_path / 'predicted/predictions.json').read_text())
    assert len(report['results']) == 1 and not report['failed']

    code, message = cli('look_inside', config, checkpoint, DINER, '--out', tmp_path / 'inside')
    assert code == 0, message
    assert cli('check_data', config)[0] == 0
    assert tool('get_flops')([str(config)]) is None
    text = capsys.readouterr().out
    assert 'bbox_head' in text


def test_resume_and_errors(cli, config, tmp_path):
    run = ['--work-dir', tmp_path / 'run']
    assert cli('train', config, *run)[0] == 0
    code, message = cli(
        'train',
        config,
        *run,
        '--resume',
        '--exact-resume',
        '--cfg-options',
        'train_cfg.max_epochs=2',
    )
    assert code == 0, message
    assert (tmp_path / 'run/epoch_2.pth').is_file()
    code, message = cli('train', config, *run, '--cfg-options', 'model.bbox_head.num_classes=3')
    assert code == 2 and 'model.bbox_head.num_classes=3: must be 80' in message
    broken = config.with_name('broken.py')
    broken.write_text(config.read_text().replace('FocalLoss', 'FocalLos'))
    code, message = cli('train', broken, *run)
    assert code == 2 and 'FocalLos' in message
    broken.write_text(config.read_text().replace('instances_val2017', 'nowhere'))
    code, message = cli('train', broken, *run)
    assert code == 2 and 'nowhere.json   <- missing' in message
