"""The COCO configs train and evaluate on a tiny data set in COCO's layout, through the tools."""

import json
from pathlib import Path

import pytest

CONFIGS = [f'{detector}_dla_r50' for detector in ('faster_rcnn', 'mask_rcnn', 'retinanet')]
# keep the boxes of an untrained model, but few of them
RETINANET = ['model.test_cfg.score_thr=0.0', 'model.test_cfg.nms_pre=100']
RCNN = [
    'model.test_cfg.rcnn.score_thr=0.0',
    'model.test_cfg.rpn.max_per_img=50',
    'model.train_cfg.rpn_proposal.max_per_img=100',
    'model.train_cfg.rcnn.sampler.num=32',
]


def options_for(name: str, root: Path, checkpoint: Path, work_dir: Path) -> list[str]:
    """Options that shorten the run and point at the data."""
    options = [
        f'model.backbone.init_cfg.checkpoint={checkpoint}',
        *(RETINANET if 'retinanet' in name else RCNN),
        'default_hooks.checkpoint.save_optimizer=False',
        'train_cfg.max_epochs=1',
        'train_dataloader.batch_size=1',
        'train_dataloader.dataset.pipeline.2.scale=(160,128)',
        'default_hooks.logger.interval=1',
        'randomness.seed=0',
    ]
    for split in ('train', 'val', 'test'):
        options += [
            f'{split}_dataloader.dataset.data_root={root}',
            f'{split}_dataloader.num_workers=0',
            f'{split}_dataloader.persistent_workers=False',
        ]
    for split in ('val', 'test'):
        options += [
            f'{split}_dataloader.dataset.pipeline.1.scale=(160,128)',
            f'{split}_evaluator.ann_file={root}/annotations/instances_val2017.json',
            f'{split}_evaluator.outfile_prefix={work_dir}/{split}',
        ]
    return options


def read_metrics(work_dir: Path, pattern: str) -> dict:
    (file,) = work_dir.glob(pattern)
    last = json.loads(file.read_text().splitlines()[-1])
    return {key: value for key, value in last.items() if key.startswith('coco/')}


@pytest.fixture
def run_tool(tool, run_process):
    """Run a tool in this process, which saves the imports, or in one of its own."""

    def run(name: str, *argv, process: bool) -> None:
        if process:
            result = run_process(f'tools/{name}.py', *argv)
            assert result.returncode == 0, result.stderr
        else:
            tool(name)([str(arg) for arg in argv])

    return run


@pytest.mark.parametrize('name', CONFIGS)
def test_trains_and_evaluates(name, run_tool, repo, tiny_coco, resnet_checkpoint, tmp_path):
    config = repo / f'configs/{name}.py'
    options = ['--cfg-options', *options_for(name, tiny_coco, resnet_checkpoint(50), tmp_path)]
    process = name == CONFIGS[0]

    run_tool('train', config, '--work-dir', tmp_path / 'train', *options, process=process)
    lines = (next(tmp_path.glob('train/*/vis_data/scalars.json'))).read_text().splitlines()
    losses = [json.loads(line)['loss'] for line in lines if 'loss' in json.loads(line)]
    assert len(losses) == 2
    assert all(0 < loss < 1000 for loss in losses), losses

    checkpoint = tmp_path / 'train/epoch_1.pth'
    run_tool(
        'test',
        config,
        checkpoint,
        '--work-dir',
        tmp_path / 'test',
        *options,
        process=process,
    )
    checkpoint.unlink()
    after_training = read_metrics(tmp_path, 'train/*/vis_data/scalars.json')
    assert 'coco/bbox_mAP' in after_training
    assert ('coco/segm_mAP' in after_training) == ('mask' in name)
    assert read_metrics(tmp_path, 'test/*/*.json') == after_training

    for kind in ('bbox', 'segm') if 'mask' in name else ('bbox',):
        predictions = json.loads((tmp_path / f'val.{kind}.json').read_text())
        assert predictions
        assert json.loads((tmp_path / f'test.{kind}.json').read_text()) == predictions
