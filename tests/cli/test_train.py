"""``tools/train.py``: its options, and what it says to bad input."""

import json
from urllib.error import URLError

import pytest
import torch


def log_of(work_dir) -> list[dict]:
    (file,) = work_dir.glob('*/vis_data/scalars.json')
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_resume_goes_on_where_training_stopped(cli, small_run, tmp_path):
    assert cli('train', *small_run)[0] == 0
    checkpoint = tmp_path / 'run/epoch_1.pth'
    assert checkpoint.is_file()
    go_on = [small_run[0], '--work-dir', tmp_path / 'more', '--resume', checkpoint]
    assert cli('train', *go_on, '--cfg-options', 'train_cfg.max_epochs=2')[0] == 0
    epochs = [line['epoch'] for line in log_of(tmp_path / 'more') if 'loss' in line]
    assert epochs == [2, 2]

    auto = [small_run[0], '--work-dir', tmp_path / 'more', '--resume']
    assert cli('train', *auto, '--cfg-options', 'train_cfg.max_epochs=3')[0] == 0
    assert (tmp_path / 'more/epoch_3.pth').is_file()


def test_auto_scale_lr_scales_with_the_batch(cli, small_run, tmp_path):
    options = ['--auto-scale-lr', '--cfg-options', 'param_scheduler=None']
    assert cli('train', *small_run, *options)[0] == 0
    assert log_of(tmp_path / 'run')[0]['lr'] == pytest.approx(0.01 / 16)


def test_coco_not_there(run_process, repo, tmp_path):
    """Through a process of its own: exit code, one message, nothing left behind."""
    config = repo / 'configs/faster_rcnn_dla_r50.py'
    result = run_process('tools/train.py', config, cwd=tmp_path)
    assert result.returncode == 2
    assert 'Traceback' not in result.stderr
    message = result.stderr[result.stderr.index('error:') :]
    assert str(tmp_path / 'data/coco') in message
    for name in ('train2017/', 'val2017/', 'instances_train2017.json', 'instances_val2017.json'):
        assert name in message
    assert not list(tmp_path.iterdir())


def test_no_such_config(cli, repo):
    code, message = cli('train', repo / 'configs/faster_rcnn_dla_r51.py')
    assert code == 2
    assert "did you mean 'faster_rcnn_dla_r50.py'" in message


def test_config_of_a_library_that_is_not_installed(cli, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['no_such_library'])\nmodel = dict()\n")
    code, message = cli('train', config)
    assert code == 2
    assert 'no_such_library' in message


def test_no_checkpoint_to_resume_from(cli, small_run):
    code, message = cli('train', *small_run, '--resume', 'nowhere.pth')
    assert code == 2
    assert '--resume: no checkpoint file nowhere.pth' in message


@pytest.mark.parametrize('option', ['train_cg.max_epochs=1', 'train_dataloader.dataset.x.y.z'])
def test_bad_cfg_options(cli, small_run, option):
    try:
        code, message = cli('train', *small_run, '--cfg-options', option)
    except SystemExit as error:  # as argparse does
        code, message = error.code, None
    assert code == 2
    assert message is None or "did you mean 'train_cfg'" in message


def test_mixed_precision_needs_a_gpu(cli, small_run, tool, monkeypatch):
    monkeypatch.setitem(tool('train').__globals__, 'get_device', lambda: 'cpu')
    code, message = cli('train', *small_run, '--amp')
    assert code == 2
    assert 'GPU' in message


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_launcher_that_started_nothing(cli, small_run, launcher, monkeypatch):
    for name in ('RANK', 'SLURM_PROCID'):
        monkeypatch.delenv(name, raising=False)
    for name in ('LOCAL_RANK', 'SLURM_LOCALID'):
        monkeypatch.setenv(name, '0')
    code, message = cli('train', *small_run, '--launcher', launcher)
    assert code == 2
    assert f'--launcher {launcher}' in message
    assert 'tools/' in message
    for name in ('LOCAL_RANK', 'SLURM_LOCALID'):
        monkeypatch.setenv(name, '1')
    assert cli('train', *small_run, '--launcher', launcher) == (2, '')  # rank 0 has said it


def test_auto_scale_lr_without_a_batch_size(cli, small_run):
    options = ['--auto-scale-lr', '--cfg-options', 'auto_scale_lr=None']
    code, message = cli('train', *small_run, *options)
    assert code == 2
    assert 'base_batch_size' in message


@pytest.mark.parametrize('depth', [None, 101])
def test_backbone_weights_that_do_not_fit(cli, repo, own_coco, resnet_checkpoint, tmp_path, depth):
    weights = tmp_path / 'none.pth' if depth is None else resnet_checkpoint(depth)
    options = [*own_coco[1], f'model.backbone.init_cfg.checkpoint={weights}']
    config = repo / 'configs/retinanet_dla_r50.py'
    code, message = cli('train', config, '--work-dir', tmp_path / 'run', *options)
    assert code == 2
    assert str(weights) in message


def test_broken_annotations(cli, small_run, own_coco):
    root, options = own_coco
    annotations = root / 'annotations/instances_train2017.json'
    annotations.write_text(annotations.read_text()[:-200])
    code, message = cli('train', *small_run, *options)
    assert code == 2
    assert str(annotations) in message
    assert 'line 1, column' in message


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('content', [b'', b'\xff\xd8\xff no image'], ids=['empty', 'garbage'])
def test_broken_image(cli, small_run, own_coco, content, workers):
    root, options = own_coco
    for image in root.glob('train2017/*.jpg'):
        image.write_bytes(content)
    code, message = cli('train', *small_run, *options, f'train_dataloader.num_workers={workers}')
    assert code == 2
    assert str(root / 'train2017/00000000000') in message


@pytest.mark.parametrize('workers', [0, 1])
def test_missing_image(cli, small_run, own_coco, workers):
    root, options = own_coco
    for image in root.glob('train2017/*.jpg'):
        image.unlink()
    code, message = cli('train', *small_run, *options, f'train_dataloader.num_workers={workers}')
    assert code == 2
    assert 'train2017/00000000000' in message
    assert 'not there' in message


def test_annotations_of_other_classes(cli, small_run, own_coco):
    root, options = own_coco
    annotations = root / 'annotations/instances_train2017.json'
    content = json.loads(annotations.read_text())
    content['categories'] = [dict(id=c['id'], name=f'x{c["id"]}') for c in content['categories']]
    annotations.write_text(json.dumps(content))
    code, message = cli('train', *small_run, *options)
    assert code == 2
    assert 'classes' in message
    assert str(annotations) in message


def broken_validation(config, tmp_path) -> list:
    """The config without the scale factor that the boxes are brought back with."""
    path = tmp_path / 'broken.py'
    path.write_text(f"""
_base_ = {str(config)!r}
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 120), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
]
val_dataloader = dict(dataset=dict(pipeline=pipeline))
""")
    return [path, '--work-dir', tmp_path / 'run']


def test_a_broken_validation_ends_before_training(cli, small_config, tmp_path):
    argv = broken_validation(small_config, tmp_path)
    code, message = cli('train', *argv)
    assert code == 2
    assert "('scale_factor')" in message.replace('"', "'") and '--no-val-check' in message
    assert not list((tmp_path / 'run').glob('*.pth'))
    assert not [line for path in tmp_path.glob('run/*/vis_data/scalars.json')
                for line in path.read_text().splitlines()]  # fmt: skip
    for option in (['--no-val-check'], ['--cfg-options', 'default_hooks.val_check=None']):
        with pytest.raises(AssertionError):
            cli('train', *argv, *option)
        assert (tmp_path / 'run/epoch_1.pth').is_file()


def test_the_training_is_the_same_with_the_check(cli, small_run, tmp_path):
    """Weights and losses, bit for bit."""
    runs = []
    for option in ([], ['--no-val-check']):
        argv = [small_run[0], '--work-dir', tmp_path / f'run{len(runs)}', *option]
        seed = ['--cfg-options', 'randomness.seed=0', 'randomness.deterministic=True']
        assert cli('train', *argv, *seed)[0] == 0
        state = torch.load(tmp_path / f'run{len(runs)}/epoch_1.pth', weights_only=False)
        losses = [line.get('loss') for line in log_of(tmp_path / f'run{len(runs)}')]
        runs.append((state['state_dict'], losses))
    (with_it, losses), (without, same) = runs
    assert losses == same and all(torch.equal(v, without[k]) for k, v in with_it.items())


@pytest.mark.parametrize(
    ('option', 'words'),
    [
        ('model.bbox_head.num_classes=3', 'model.bbox_head.num_classes=3: must be 80'),
        ('train_dataloader.dataset.metainfo.classes=nucleus', "('nucleus',)"),
    ],
)
def test_classes_that_do_not_fit(cli, small_run, tmp_path, option, words):
    code, message = cli('train', *small_run, '--cfg-options', option)
    assert code == 2 and words in message
    assert not (tmp_path / 'run').exists()


def test_weights_that_cannot_be_fetched(cli, repo, own_coco, tmp_path, monkeypatch):
    """The message says where the file can be put, and how to do without it."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))

    def refuse(*_, **__):
        raise URLError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', refuse)
    config = repo / 'configs/retinanet_dla_r50.py'
    code, message = cli('train', config, '--work-dir', tmp_path / 'run', *own_coco[1])
    assert code == 2
    assert 'torchvision://resnet50: could not be fetched' in message
    assert f'.pth into {tmp_path / "hub/checkpoints"} under the name resnet50-' in message
    for way in ('init_cfg=None', 'frozen_stages=0', 'init_cfg.checkpoint=FILE'):
        assert f'{way}' in message
