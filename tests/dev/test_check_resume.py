"""Trainings that are killed, also while they write, end as those that ran through."""

import re

import numpy as np
import pytest
import torch

CLASSIFIER = """
_base_ = {base!r}
train_dataloader = dict(dataset=dict(data_root={root!r}, data_prefix=''), batch_size=4)
val_dataloader = dict(dataset=dict(data_root={root!r}, data_prefix=''))
"""


@pytest.fixture
def classifier(repo, tmp_path) -> list[str]:
    """The network of the digits on images of CIFAR, cropped at random, with drop path."""
    import cv2

    images = sorted((repo / 'tests/data/cifar').glob('cifar10_*.png'))[:8]
    for number, image in enumerate(images):
        folder = tmp_path / f'pictures/{number % 2}'
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / image.name), cv2.imread(str(image)))
    config = tmp_path / 'classifier.py'
    config.write_text(
        CLASSIFIER.format(
            base=str(repo / 'configs/demo_digits_dla_l.py'), root=str(tmp_path / 'pictures')
        )
    )
    return [str(config), 'model.backbone.drop_path_rate=0.2', 'train_dataloader.num_workers=1']


def test_two_kills(run_process, classifier, tmp_path):
    config, *options = classifier
    options += [
        'train_cfg.max_epochs=4',
        'train_cfg.val_interval=100',
        'default_hooks.checkpoint.interval=1',
        'default_hooks.checkpoint.max_keep_ckpts=1',
    ]
    argv = [config, '--kills', '2', '--work-dir', str(tmp_path / 'work')]
    result = run_process('dev/check_resume.py', *argv, '--', '--cfg-options', *options)
    assert result.returncode == 0, result.stderr
    assert len(re.findall(r'^kill \d \((?:writing|epoch)\)', result.stdout, re.M)) == 2
    assert re.search(r'all \d{3} tensors of weights and optimizer are equal', result.stdout)
    assert len(list((tmp_path / 'work/killed/log').iterdir())) == 3
    names = [path.name for path in (tmp_path / 'work/killed').glob('*.pth')]
    assert 'epoch_4.pth' in names
    assert not any('.part' in name for name in names)


def test_differences_are_found(tool):
    differences = tool('check_resume').__globals__['differences']
    first = dict(w=torch.ones(3), steps=[dict(lr=0.1), np.ones(2)], n=1)
    assert list(differences(first, first)) == []
    for name, second in {
        '.w': dict(first, w=torch.ones(3).nextafter(torch.tensor(2.0))),
        '.steps[0].lr': dict(first, steps=[dict(lr=0.2), np.ones(2)]),
        '.steps[1]': dict(first, steps=[dict(lr=0.1), np.zeros(2)]),
        '.n': dict(w=first['w'], steps=first['steps']),
    }.items():
        assert list(differences(first, second)) == [name]


def test_a_training_too_short_for_the_kills(cli, small_run, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work/file').touch()
    code, message = cli('check_resume', small_run[0], '--work-dir', tmp_path / 'work')
    assert code == 2
    assert 'is not empty' in message
