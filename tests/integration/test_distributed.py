"""Two processes without a GPU compute what one computes with the same global batch."""

import json
import os
import pickle
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from fixtures import save_random_weights
from job import Job

HERE = Path(__file__).parent
COMMON = """
custom_imports = dict(imports=['mmdla', 'loss_log'], allow_failed_imports=False)
custom_hooks = [dict(type='LossLogHook')]
env_cfg = dict(dist_cfg=dict(timeout=120))
param_scheduler = None
randomness = dict(seed=0)
val_dataloader = val_evaluator = val_cfg = None
"""
DETECTION = """
backbone = dict(depth=18, base_channels=32, frozen_stages=1, norm_eval=True, init_cfg=None)
neck = dict(in_channels=[32, 64, 128, 256], out_channels=32)
bbox_head = dict(in_channels=32, feat_channels=32, stacked_convs=1)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(160, 128), keep_ratio=False),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(
    batch_size=1,
    num_workers=0,
    persistent_workers=False,
    batch_sampler=None,
    dataset=dict(data_root={root!r}, pipeline=train_pipeline),
)
train_cfg = dict(max_epochs=4)
"""
# divides its losses by the positives of all processes
ATSS = """
_base_ = 'mmdet::atss/atss_r50_fpn_1x_coco.py'
attention = dict(type='DLALight', reduction=4)
model = dict(
    backbone=dict(type='DLAResNet', layer_attention=attention, **backbone),
    neck=neck,
    bbox_head=bbox_head,
)
auto_scale_lr = dict(base_batch_size=8)
"""
# divides its losses by the positives of a process's own images
RETINANET = """
_base_ = {base!r}
attention = dict(_delete_=True, type='DLABase', reduction=4)
model = dict(
    backbone=dict(layer_attention=attention, with_cp=True, freeze_attention=True, **backbone),
    neck=neck,
    bbox_head=bbox_head,
)
"""
CLASSIFICATION = """
_base_ = {base!r}
attention = dict(drop_path_rate=0.0)
norm = dict(type='GN', num_groups=4)
model = dict(backbone=dict(norm_cfg=norm, with_cp=True, layer_attention=attention))
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    dataset=dict(
        _delete_=True,
        type='CustomDataset',
        data_root={root!r},
        ann_file={labels!r},
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    ),
)
test_dataloader = dict(batch_size=3, num_workers=0, dataset=train_dataloader['dataset'])
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=0.01))  # at 0.1 six steps make rounding grow to 4e-6
"""


@pytest.fixture
def train_alone(tool, tmp_path):
    """``train_alone(config, *options)`` is what one process gives: losses and weights."""

    def train(config, *options):
        folder = tmp_path / 'alone'
        tool('train')([str(config), '--work-dir', str(folder), '--cfg-options', *options])
        return results(folder)

    return train


def write(path: Path, *parts: str, **values) -> Path:
    path.write_text(''.join((*parts, COMMON)).format(**{k: str(v) for k, v in values.items()}))
    return path


def results(folder: Path) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses of the steps, and weights after the last of ``max_epochs`` epochs."""
    checkpoint = (folder / 'last_checkpoint').read_text()
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    return json.loads((folder / 'losses.json').read_text()), state


def assert_same(ours, theirs, start=None):
    """To 1e-6, and not because nothing was learned."""
    losses, weights = ours
    assert losses == pytest.approx(theirs[0], rel=1e-6)
    assert len(losses) > 3
    assert losses[-1] != pytest.approx(losses[0], rel=1e-3)
    assert weights.keys() == theirs[1].keys()
    for name, weight in weights.items():
        torch.testing.assert_close(
            weight, theirs[1][name], rtol=1e-6, atol=1e-6, msg=lambda m, n=name: f'{n}: {m}'
        )


def test_detector_with_frozen_stages(train_alone, tiny_coco, tmp_path):
    config = write(tmp_path / 'atss.py', DETECTION, ATSS, root=tiny_coco)
    out = tmp_path / 'two'
    argv = [config, 2, '--work-dir', out, '--auto-scale-lr']
    with Job('dist_train.sh', *argv, log=tmp_path / 'log') as job:
        assert job.wait() == 0, job.output
    # ATSS trains at 0.01 with 8 images, here there is 1 for each of 2 processes
    options = ['train_dataloader.batch_size=2', f'optim_wrapper.optimizer.lr={0.01 * 2 / 8}']
    assert_same(results(out), train_alone(config, *options))


def test_checkpointed_dla_base_and_a_killed_process(train_alone, repo, tiny_coco, tmp_path):
    """The reference takes the images one by one and steps after each two."""
    base = repo / 'configs/retinanet_dla_r50.py'
    config = write(tmp_path / 'retinanet.py', DETECTION, RETINANET, base=base, root=tiny_coco)
    out = tmp_path / 'two'
    options = ['--cfg-options', 'train_cfg.max_epochs=9999']
    with Job('dist_train.sh', config, 2, '--work-dir', out, *options, log=tmp_path / 'log') as job:
        job.wait_for(out / 'epoch_5.pth')
        killed, start = job.process_of(1), time.monotonic()
        os.kill(killed, signal.SIGKILL)
        code = job.wait(60)
    assert code == 128 + signal.SIGKILL
    assert time.monotonic() - start < 60
    message = job.output.splitlines()[-1]
    assert f'rank 1 (local rank 1, process {killed}) was killed by SIGKILL' in message
    assert '--resume' in message

    losses, weights = train_alone(config, 'optim_wrapper.accumulative_counts=2')
    means = [sum(pair) / 2 for pair in zip(losses[::2], losses[1::2], strict=True)]
    (out / 'last_checkpoint').write_text(str(out / 'epoch_4.pth'))
    ours = results(out)
    assert_same((ours[0][:4], ours[1]), (means, weights))


@pytest.fixture
def classifier(repo, tmp_path) -> Path:
    """Config of a classifier of 20 images, in the order of their names."""
    images = sorted((repo / 'tests/data/cifar').glob('cifar100_*.png'))
    root = tmp_path / 'pictures'
    root.mkdir()
    for image in images:
        shutil.copy(image, root)
    labels = tmp_path / 'labels.txt'
    labels.write_text('\n'.join(f'{p.name} {int(p.stem.split("_")[2])}' for p in images))
    base = repo / 'configs/cifar100_dla_b.py'
    return write(tmp_path / 'classifier.py', CLASSIFICATION, base=base, root=root, labels=labels)


def test_classifier_under_slurm(train_alone, classifier, tmp_path):
    out = tmp_path / 'two'
    env = dict(GPUS='2', GRES='', SRUN_LOG=str(tmp_path / 'srun'), path=HERE / 'slurm')
    argv = ['cpus', 'name of job', classifier, out]
    with Job('slurm_train.sh', *argv, log=tmp_path / 'log', **env) as job:
        assert job.wait() == 0, job.output
    assert_same(results(out), train_alone(classifier, 'train_dataloader.batch_size=8'))


def test_evaluation(tool, classifier, tmp_path):
    """19 images, so that one process has to repeat one."""
    checkpoint = save_random_weights(classifier)
    options = ['--cfg-options', 'test_dataloader.dataset.indices=19', '--out']
    two, alone = tmp_path / 'two.pkl', tmp_path / 'alone.pkl'
    with Job('dist_test.sh', classifier, checkpoint, 2, *options, two, log=tmp_path / 'log') as job:
        assert job.wait() == 0, job.output
    folder = tmp_path / 'alone'
    argv = [classifier, checkpoint, *options, alone, '--work-dir', folder]
    tool('test')([str(arg) for arg in argv])

    ours, theirs = (pickle.loads(path.read_bytes()) for path in (two, alone))
    assert len(ours) == len(theirs) == 19
    for our, their in zip(ours, theirs, strict=True):
        assert our['img_path'] == their['img_path']
        torch.testing.assert_close(our['pred_score'], their['pred_score'], rtol=1e-5, atol=1e-7)
    ours, theirs = (
        json.loads(next(path.glob('*/*.json')).read_text())
        for path in (tmp_path / 'work_dirs/classifier', folder)
    )
    assert ours['accuracy/top1'] == theirs['accuracy/top1']


def test_an_image_that_one_process_cannot_read(classifier, tmp_path):
    """The second process reads the second image; the first one waits for its gradients."""
    broken = tmp_path / 'pictures/cifar100_01_33.png'
    broken.write_bytes(b'no image')
    argv = [classifier, 2, '--cfg-options', 'train_dataloader.sampler.shuffle=False']
    argv.append('train_dataloader.num_workers=1')
    with Job('dist_train.sh', *argv, log=tmp_path / 'log') as job:
        assert job.wait(120) == 2, job.output
    lines = job.output.splitlines()
    (message,) = [line for line in lines if line.startswith('error (rank 1):')]
    assert str(broken) in message
    assert 'error: rank 1 (local rank 1, process ' in lines[-1]
