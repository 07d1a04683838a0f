"""Small runs of the tools."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import save_random_weights

from mmdla.cli.command_line import run


@pytest.fixture
def cli(tool, capsys) -> Callable[..., tuple[int, str]]:
    """``cli('train', *argv)`` returns exit code and standard error."""

    def call(name: str, *argv) -> tuple[int, str]:
        capsys.readouterr()
        code = run(tool(name), [str(arg) for arg in argv])
        return code, capsys.readouterr().err

    return call


@pytest.fixture(scope='session')
def small_config(repo, tiny_coco, tmp_path_factory) -> Path:
    """A RetinaNet with a DLA-ResNet-18 on the tiny data set, the same for every test."""
    path = tmp_path_factory.mktemp('configs') / 'small.py'
    path.write_text(f"""
_base_ = {str(repo / 'configs/retinanet_dla_r50.py')!r}
model = dict(
    backbone=dict(depth=18, init_cfg=None),
    neck=dict(in_channels=[64, 128, 256, 512], out_channels=32),
    bbox_head=dict(in_channels=32, feat_channels=32, stacked_convs=1),
    test_cfg=dict(score_thr=0.0),
)
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    *train_pipeline[:-1],
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
loader = dict(num_workers=0, persistent_workers=False)
data = dict(data_root={str(tiny_coco)!r})
train_dataloader = dict(**loader, batch_size=1, dataset=dict(**data, pipeline=train_pipeline))
val_dataloader = dict(**loader, dataset=dict(**data, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={str(tiny_coco / 'annotations/instances_val2017.json')!r})
test_evaluator = val_evaluator
""")
    return path


@pytest.fixture(scope='session')
def checkpoint(small_config) -> Path:
    """Random weights of the small detector."""
    return save_random_weights(small_config)


@pytest.fixture
def small_run(small_config, tmp_path) -> list[str]:
    """Arguments of a small run that keep its files in the test's folder."""
    return [str(small_config), '--work-dir', str(tmp_path / 'run')]


@pytest.fixture
def own_coco(tiny_coco, tmp_path) -> tuple[Path, list[str]]:
    """A copy of the tiny data set to be broken, and the options that name it."""
    root = Path(shutil.copytree(tiny_coco, tmp_path / 'coco'))
    options = [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')]
    annotations = root / 'annotations/instances_val2017.json'
    options += [f'{split}_evaluator.ann_file={annotations}' for split in ('val', 'test')]
    return root, ['--cfg-options', *options]


@pytest.fixture(scope='session')
def two_stage(repo, tmp_path_factory) -> tuple[Path, Path]:
    """A small Mask R-CNN, config and checkpoint with random weights."""
    path = tmp_path_factory.mktemp('two_stage') / 'mask_rcnn.py'
    path.write_text(f"""
_base_ = {str(repo / 'configs/mask_rcnn_dla_r50.py')!r}
model = dict(
    backbone=dict(depth=18, base_channels=32, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=32),
    rpn_head=dict(in_channels=32, feat_channels=32),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=32, fc_out_channels=64),
        mask_roi_extractor=dict(out_channels=32),
        mask_head=dict(in_channels=32, conv_out_channels=32, num_convs=1),
    ),
    test_cfg=dict(rpn=dict(max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=3)),
)
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
""")
    return path, save_random_weights(path)
