"""``tools/reproduce.py``: what it plans, runs, resumes, collects and refuses."""

import json
import os
import re
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
def images(tmp_path_factory, repo):
    """Twenty real images of ten classes, one folder for each class."""
    root = tmp_path_factory.mktemp('classes')
    for label in range(10):
        (root / str(label)).mkdir()
    for path in (repo / 'tests/data/cifar').glob('cifar10_*.png'):
        shutil.copy(path, root / path.stem.split('_')[2])
    return root


@pytest.fixture(scope='module')
def options(images):
    """A run of seconds: few images, few epochs; with drop path and augmentation in a worker."""
    return [
        f'train_dataloader.dataset.data_root={images}',
        f'val_dataloader.dataset.data_root={images}',
        f'test_dataloader.dataset.data_root={images}',
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
    environment = {**os.environ, 'PYTHONPATH': f'{repo}:{os.environ["PYTHONPATH"]}'}
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


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """A copy of the finished run to be damaged."""
    shutil.copytree(finished.parents[2], tmp_path, dirs_exist_ok=True)
    return tmp_path / 'digits/dla_b/seed0'


def log_of(run: Path) -> Path:
    (log,) = run.glob('*/vis_data/scalars.json')
    return log


def change_result(run: Path, value: float) -> None:
    log = log_of(run)
    *lines, last = log.read_text().splitlines()
    last = {**json.loads(last), 'accuracy/top1': value}
    log.write_text('\n'.join([*lines, json.dumps(last)]) + '\n')


def test_collects_mean_and_deviation(main, copied, options, tmp_path, capsys):
    change_result(copied, 90.0)
    for seed, value in ((1, 91.0), (2, 95.0)):
        run = copied.with_name(f'seed{seed}')
        shutil.copytree(copied, run)
        change_result(run, value)
        config = log_of(run).with_name('config.py')
        config.write_text(config.read_text().replace('seed=0', f'seed={seed}'))
    argv = arguments(options, tmp_path, 'dla_b', 'plain')
    argv[argv.index('--seeds') + 1 : argv.index('--work-dir')] = ['0', '1', '2', '3']
    main([*argv, '--collect'])
    text = (tmp_path / 'digits/results.md').read_text()
    assert text in capsys.readouterr().out
    # mean 92, sample deviation sqrt((4 + 1 + 9) / 2)
    assert re.search(
        r'\| dla_b \| 92\.00 ± 2\.65 \| 0, 1, 2 \| 0\.41 \| 0\.\d+ \|  \| this run \|', text
    )
    assert 'Not finished: plain (seeds 0, 1, 2, 3), dla_b (seeds 3).' in text
    assert 'With other settings than the configs: ' in text
    result = json.loads((tmp_path / 'digits/results.json').read_text())
    row = result['rows'][1]
    assert row['summary']['top-1, %']['mean'] == pytest.approx(92)
    assert row['summary']['top-1, %']['deviation'] == pytest.approx(7**0.5)
    assert {seed: v['top-1, %'] for seed, v in row['seeds'].items()} == {
        '0': 90, '1': 91, '2': 95,
    }  # fmt: skip
    assert row['unfinished'] == [3]


def test_runs_of_elsewhere(main, cli_here, copied, options, tmp_path, capsys):
    """Their records count as if they had been run here, and they are not run again."""
    main([*arguments(options, tmp_path), '--collect'])
    result = json.loads((tmp_path / 'digits/results.json').read_text())
    kept = tmp_path / 'kept.json'
    shutil.move(tmp_path / 'digits/records.json', kept)
    shutil.rmtree(tmp_path / 'digits')
    elsewhere = ['--records', str(kept), '--skip-data-check']
    capsys.readouterr()
    main([*arguments(options, tmp_path), *elsewhere])  # trains nothing
    assert not (tmp_path / 'digits/dla_b').exists()
    assert json.loads((tmp_path / 'digits/results.json').read_text()) == result
    assert (tmp_path / 'digits/records.json').read_text() == kept.read_text()
    other = [*options, 'optim_wrapper.optimizer.lr=0.02']
    code, message = cli_here(*arguments(other, tmp_path), *elsewhere)
    assert code == 2
    assert 'dla_b, seed 0, is of another training' in message


def test_damaged_record_is_made_anew(main, copied, options, tmp_path):
    main([*arguments(options, tmp_path), '--collect'])
    record = (copied / 'record.json').read_text()
    for damage in ('{"sett', '{}', record.replace('"settings": "', '"settings": "0')):
        (copied / 'record.json').write_text(damage)
        main([*arguments(options, tmp_path), '--collect'])
        assert (copied / 'record.json').read_text() == record


def test_published_numbers_stand_beside_ours(main, tmp_path):
    main(['--table', 'imagenet', '--collect', '--work-dir', str(tmp_path)])
    text = (tmp_path / 'imagenet/results.md').read_text()
    (line,) = (line for line in text.splitlines() if '| resnet50_8xb32_in1k |' in line)
    assert line.split(' | ')[1:3] == ['76.55', '93.06']
    assert 'configs/resnet/metafile.yml' in line


def test_cut_off_last_line(main, copied, options, tmp_path):
    """A process that is killed in writing leaves half a line."""
    expected = json.loads((tmp_path / 'digits/results.json').read_text())
    (tmp_path / 'digits/results.json').unlink()
    log = log_of(copied)
    log.write_text(log.read_text() + '{"loss": 1.2, "st')
    main([*arguments(options, tmp_path), '--collect'])
    assert json.loads((tmp_path / 'digits/results.json').read_text()) == expected


@pytest.mark.parametrize(
    ('line', 'words'),
    [
        ('{"loss": 1.2, "st\n', 'no valid JSON'),
        ('[1, 2]\n', 'not an object'),
        ('{"epoch": 3}\n', 'not a log of MMEngine'),
    ],
)
def test_broken_log(cli_here, copied, options, tmp_path, line, words):
    log = log_of(copied)
    log.write_text(line + log.read_text())
    code, message = cli_here(*arguments(options, tmp_path), '--collect')
    assert code == 2
    assert str(log) in message and words in message


def test_log_of_another_project(cli_here, copied, options, tmp_path):
    log_of(copied).with_name('config.py').unlink()
    code, message = cli_here(*arguments(options, tmp_path), '--collect')
    assert code == 2
    assert 'not the config of a training with tools/train.py' in message


@pytest.mark.parametrize(
    ('option', 'difference'),
    [
        ('optim_wrapper.optimizer.lr=0.02', 'optim_wrapper.optimizer.lr: 0.01 there, 0.02 asked'),
        ('train_cfg.max_epochs=9', 'train_cfg.max_epochs: 5 there, 9 asked for'),
        ('model.backbone.layer_attention.reduction=8', 'reduction: 4 there, 8 asked for'),
    ],
)
@pytest.mark.parametrize('mode', [['--collect'], ['--skip-data-check']], ids=' '.join)
def test_log_of_another_training(cli_here, copied, options, tmp_path, option, difference, mode):
    code, message = cli_here(*arguments([*options, option], tmp_path), *mode)
    assert code == 2
    assert 'another training' in message and difference in message


def test_killed_in_the_last_validation(main, finished, copied, options, tmp_path):
    """Its last checkpoint has no epoch left, so the one before is gone on from."""
    log = log_of(copied)
    log.write_text(''.join(line + '\n' for line in log.read_text().splitlines()[:-1]))
    train(main, options, tmp_path)
    expected, found = state(finished)[0], state(copied)[0]
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_damaged_checkpoints_are_left_out(copied, repo, options):
    from mmdla.reproduce.launch import Plan
    from mmdla.reproduce.runs import Run
    from mmdla.reproduce.tables import read_table

    table = read_table('digits', repo)
    plan = Plan(table.rows[-1], 0, copied, tuple(options))
    run = Run(table, plan, repo)
    assert run.checkpoint() == copied / 'epoch_4.pth'
    half = (copied / 'epoch_4.pth').read_bytes()
    (copied / 'epoch_4.pth').write_bytes(half[: len(half) // 2])
    assert run.checkpoint() is None
    shutil.copy(copied / 'epoch_5.pth', copied / 'epoch_3.pth')
    assert run.checkpoint() == copied / 'epoch_3.pth'


def test_folder_in_use(tmp_path):
    from mmdla.errors import InputError
    from mmdla.reproduce.runs import only_one

    with (
        only_one(tmp_path),
        pytest.raises(InputError, match='a training is running there'),
        only_one(tmp_path, patience=0),
    ):
        pass
    with only_one(tmp_path, patience=0):
        pass


def test_failing_training_is_named(cli_here, options, tmp_path):
    bad = [*options, 'model.backbone.layer_attention.reduction=0']
    code, message = cli_here(*arguments(bad, tmp_path), '--skip-data-check')
    assert code == 2
    assert 'the training of dla_b, seed 0, ended with exit code' in message


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        ('--table svhn', "invalid choice: 'svhn'"),
        ('--seeds 1', '--table is needed'),
        ('--dry-run --rows plain', '--table is needed'),
        ('--dry-run --tflops 0', '--tflops: must be positive'),
        ('--dry-run --collect', 'not allowed with'),
        ('--dry-run --records r.json', '--records is for one --table'),
    ],
)
def test_bad_options(main, capsys, argv, words):
    with pytest.raises(SystemExit) as error:
        main(argv.split())
    assert error.value.code == 2
    assert words in capsys.readouterr().err


def test_unknown_row_and_setting(cli_here, tmp_path):
    code, message = cli_here('--table', 'digits', '--rows', 'dla_c', '--dry-run')
    assert code == 2 and 'digits has plain, mrla_l, dla_l, dla_b' in message
    argv = ['--table', 'digits', '--skip-data-check', '--work-dir', tmp_path, '--cfg-options']
    code, message = cli_here(*argv, 'train_cg.max_epochs=1')
    assert code == 2 and "did you mean 'train_cfg'" in message
    code, message = cli_here(*argv, 'train_cfg.max_epochs')
    assert code == 2 and 'expected KEY=VALUE' in message


def test_demo_compares_the_same_table(repo, tmp_path):
    """projects/demo/compare.py hands over to tools/reproduce.py."""
    recorder = tmp_path / 'python'
    recorder.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    recorder.chmod(0o755)
    code = (
        'import sys, runpy, digits; sys.executable = sys.argv[1]; digits.prepare = print; '
        "sys.argv = ['compare.py', '--models', 'dla_l', '--seeds', '5', '--work-dir', '/w']; "
        "runpy.run_path(digits.__file__.replace('digits', 'compare'), run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, '-c', code, str(recorder)],
        cwd=repo / 'projects/demo',
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-9:] == [
        str(repo / 'tools/reproduce.py'), '--table', 'digits', '--rows', 'dla_l', '--seeds', '5',
        '--work-dir', '/w',
    ]  # fmt: skip
