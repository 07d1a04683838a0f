"""The tools train and evaluate a classifier as well as a detector."""

import json

CONFIG = """
_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'
custom_imports = dict(imports=['mmdla'], allow_failed_imports=False)
model = dict(backbone=dict(type='DLAResNet', layer_attention=dict(type='DLALight')))
train_cfg = dict(max_epochs=1)
data_root = {root!r}
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(data_root=data_root))
val_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(data_root=data_root))
test_dataloader = val_dataloader
"""


def test_trains_and_evaluates(tool, tiny_imagenet, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=str(tiny_imagenet)))
    tool('train')([str(config), '--work-dir', str(tmp_path / 'train')])
    (log,) = tmp_path.glob('train/*/vis_data/scalars.json')
    trained = json.loads(log.read_text().splitlines()[-1])

    checkpoint = str(tmp_path / 'train/epoch_1.pth')
    tool('test')([str(config), checkpoint, '--work-dir', str(tmp_path / 'test')])
    (metrics,) = tmp_path.glob('test/*/*.json')
    tested = json.loads(metrics.read_text())
    for key in ('accuracy/top1', 'accuracy/top5'):
        assert tested[key] == trained[key]


def test_imagenet_not_there(tool, tmp_path, capsys):
    from mmdla.cli.command_line import run

    config = tmp_path / 'config.py'
    config.write_text(CONFIG.format(root=str(tmp_path / 'imagenet')))
    assert run(tool('train'), [str(config)]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path / 'imagenet') in message
    assert 'one folder for every class' in message
