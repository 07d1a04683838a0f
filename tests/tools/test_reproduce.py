"""``tools/reproduce.py``: what it plans, runs, resumes, collects and refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

EPOCHS = 5


@pytest.fixture(scope='module')
def pictures(tmp_path_factory, repo):
    """Twenty real pictures of ten classes, one folder for each class."""
    root = tmp_path_factory.mktemp('classes')
    for label in range(10):
        (root / str(label)).mkdir()
    for path in (repo / 'tests/data/cifar').glob('cifar10_*.png'):
        shutil.copy(path, root / path.stem.split('_')[2])
    return root


@pytest.fixture(scope='module')
def options(pictures):
    """A run of seconds: few pictures, few epochs; with drop path and augmentation in a worker."""
    return [
        f'train_dataloader.dataset.data_root={pictures}',
        f'val_dataloader.dataset.data_root={pictures}',
        f'test_dataloader.dataset.data_root={pictures}',
        'train_dataloader.batch_size=5',
        'optim_wrapper.optimizer.lr=0.01',
        f'train_cfg.max_epochs={EPOCHS}',
        f'train_cfg.val_interval={EPOCHS}',
        'default_hooks.logger.interval=1',
    ]


@pytest.fixture
def main(tool, monkeypatch, repo):
    monkeypatch.chdir(repo)  # where it changes to itself
    return tool('reproduce')


@pytest.fixture
def cli_here(cli, monkeypatch, repo):
    monkeypatch.chdir(repo)
    return lambda *argv: cli('reproduce', *argv)


def arguments(options, work_dir, *rows: str) -> list[str]:
    where = ['--table', 'digits', '--rows', *(rows or ['dla_b']), '--seeds', '0']
    return [*where, '--work-dir', str(work_dir), '--cfg-options', *options]


def train(main, options, work_dir) -> Path:
    main([*arguments(options, work_dir), '--skip-data-check'])
    return work_dir / 'digits/dla_b/seed0'


@pytest.fixture(scope='module')
def finished(tool, options, tmp_path_factory, repo) -> Path:
    """The folder of a run that nothing interrupted."""
    cwd = os.getcwd()
    try:
        return train(tool('reproduce'), options, tmp_path_factory.mktemp('finished'))
    finally:
        os.chdir(cwd)


def losses(run: Path) -> dict[int, float]:
    rows = []
    for log in sorted(run.glob('*/vis_data/scalars.json')):
        rows += [json.loads(line) for line in log.read_text().splitlines()]
    return {row['step']: row['loss'] for row in rows if 'loss' in row}


def state(run: Path) -> tuple[dict, dict]:
    checkpoint = torch.load(run / f'epoch_{EPOCHS}.pth', weights_only=False)
    return checkpoint['state_dict'], checkpoint['optimizer']['state']


def test_killed_run_ends_like_one_that_was_not(main, finished, options, tmp_path, repo):
    command = [sys.executable, str(repo / 'tools/reproduce.py'), '--skip-data-check']
    environment = {**os.environ, 'PYTHONPATH': str(repo)}
    with open(tmp_path / 'output', 'w') as output:
        process = subprocess.Popen(
            [*command, *arguments(options, tmp_path)],
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        run = tmp_path / 'digits/dla_b/seed0'
        while process.poll() is None and not (run / 'epoch_2.pth').exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert (run / 'epoch_2.pth').exists(), (tmp_path / 'output').read_text()[-2000:]
    assert not (run / f'epoch_{EPOCHS}.pth').exists()

    train(main, options, tmp_path)
    assert len(list(run.glob('*/vis_data/scalars.json'))) == 2
    weights, moments = state(run)
    weights_expected, moments_expected = state(finished)
    assert weights.keys() == weights_expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, weights_expected[name]), name
    for index, of_parameter in moments.items():
        for name, tensor in of_parameter.items():
            assert torch.equal(tensor, moments_expected[index][name]), (index, name)
    assert losses(run) == losses(finished)
    results = [json.loads((r.parents[1] / 'results.json').read_text()) for r in (run, finished)]
    assert results[0]['rows'] == results[1]['rows']


def test_finished_run_is_not_run_again(main, finished, options, capsys):
    before = sorted(finished.rglob('*'))
    train(main, options, finished.parents[2])
    assert 'finished before' in capsys.readouterr().out
    assert sorted(finished.rglob('*')) == before
