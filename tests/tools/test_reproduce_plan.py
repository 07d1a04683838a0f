"""What ``tools/reproduce.py`` plans: command lines that other tools accept, estimates that add up."""

import os
import shlex
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from mmdla.engine.config import apply_options
from mmdla.errors import InputError
from mmdla.reproduce import plan, published, tables
from mmdla.reproduce.collect import size_of
from mmdla.reproduce.estimate import Counts, count
from mmdla.reproduce.launch import Plan, fit_batch
from mmdla.reproduce.runs import Run

BASES = dict(coco=16, coco_masks=16, imagenet=256, cifar10=128, cifar100=128)
RECORDER = '#!/bin/bash\nprintf "%s\\n" "$@"\n'


def first_run(name: str, repo, seed: int = 0) -> Run:
    table = tables.read_table(name, repo)
    row = table.rows[0]
    return Run(table, Plan(row, seed, Path('work_dirs/reproduce') / name / row.name), repo)


OTHER_TASKS = ('demo_tree', 'deeplabv3plus', 'pspnet', 'rotated_retinanet', 'td_hm')


def test_tables_hold_every_config(repo):
    rows = [row for name in tables.NAMES for row in tables.read_table(name, repo).rows]
    assert {row.config for row in rows} == {
        f'configs/{path.name}'
        for path in repo.glob('configs/*.py')
        if not path.name.startswith(OTHER_TASKS)
    }
    names = [row.name for row in rows]
    assert len(names) == len(set(names))
    depths = {
        tables.row_config(row, repo).model.backbone.depth
        for row in tables.read_table('cifar100', repo).rows
    }
    assert depths == {20, 56, 110}


@pytest.fixture
def shell(repo, tmp_path):
    """Run a command line with stand-ins for python and srun that print what they are given."""
    for name in ('python', 'srun'):
        (tmp_path / name).write_text(RECORDER)
        (tmp_path / name).chmod(0o755)
    environment = dict(PATH=f'{tmp_path}:{os.environ["PATH"]}')

    def run(line: str) -> list[str]:
        result = subprocess.run(
            ['bash', '-c', line], cwd=repo, env=environment, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        return result.stdout.splitlines()

    return run


@pytest.mark.parametrize('name', BASES)
def test_commands_keep_the_batch_of_the_recipe(name, repo, shell, tool):
    parse_args = tool('train').__globals__['parse_args']
    text = plan.commands(tables.read_table(name, repo), first_run(name, repo, 3), 2)
    lines = [line for line in text.splitlines() if not line.startswith('#')]
    gpus = []
    for line in lines:
        words = shell(line)
        script = next(i for i, word in enumerate(words) if word.endswith('tools/train.py'))
        args = parse_args(words[script + 1 :])
        before = dict(word.lstrip('-').split('=', 1) for word in words[:script] if '=' in word)
        if 'ntasks' in before:
            assert before['ntasks-per-node'] == '8' and args.launcher == 'slurm'
            gpus.append(int(before['ntasks']))
        elif 'nproc_per_node' in before:
            assert args.launcher == 'pytorch'
            gpus.append(int(before['nproc_per_node']) * int(before.get('nnodes', 1)))
        else:
            gpus.append(1)
        cfg = Config.fromfile(repo / args.config)
        own_batch = cfg.train_dataloader.batch_size
        apply_options(cfg, args.cfg_options)
        batch = cfg.train_dataloader.batch_size * gpus[-1]
        assert cfg.auto_scale_lr.base_batch_size == BASES[name]
        assert batch == BASES[name] or (args.auto_scale_lr and batch < BASES[name])
        assert cfg.randomness.seed == 3
        assert cfg.train_dataloader.persistent_workers is False
        assert args.work_dir == f'work_dirs/reproduce/{name}/{Path(args.work_dir).name}'
        if cfg.train_dataloader.batch_size < own_batch:
            assert cfg.get('sync_bn') == ('torch' if 'coco' not in name else None)
    assert gpus == [1, 8, 16, 16, 16]
    ranks = [shlex.split(line)[1] for line in lines if line.startswith('NNODES')]
    assert ranks == ['NODE_RANK=0', 'NODE_RANK=1']


def test_a_batch_that_cannot_be_shared(repo):
    cfg = tables.row_config(tables.read_table('coco', repo).rows[0], repo)
    with pytest.raises(InputError, match='a batch of 16 images cannot be shared by 24 GPUs'):
        fit_batch(cfg, 24)


def test_time_by_hand():
    """One epoch of ten images, one validation of four, a million multiply-adds each."""
    counts = Counts(1, 1, 10**6, 0, 1, epochs=1, validations=1)
    seconds = (10 * 3 * 2e6 + 4 * 2e6) / 5e11 / 2
    assert counts.hours(10, 4, gpus=2, tflops=0.5) == pytest.approx(seconds / 3600)


def test_memory_by_hand():
    counts = Counts(100, 60, 0, saved=1000, states=2, epochs=1, validations=1)
    assert counts.gigabytes(3, 1) * 2**30 == pytest.approx(4 * (100 + 3 * 60) + 3000)
    assert counts.gigabytes(3, 8) * 2**30 == pytest.approx(4 * (100 + 4 * 60) + 3000)


MEASURED = [
    ('faster_rcnn', 'faster-rcnn_r50_fpn_1x_coco'),
    ('faster_rcnn', 'faster-rcnn_r101_fpn_1x_coco'),
    ('mask_rcnn', 'mask-rcnn_r50_fpn_1x_coco'),
    ('mask_rcnn', 'mask-rcnn_r101_fpn_1x_coco'),
    ('retinanet', 'retinanet_r50_fpn_1x_coco'),
    ('retinanet', 'retinanet_r101_fpn_1x_coco'),
]


@pytest.mark.parametrize(('folder', 'name'), MEASURED, ids=lambda text: text)
def test_memory_against_published_measurements(folder, name):
    """What MMDetection's index states for its plain detectors, with 2 images on each of 8 GPUs."""
    configs = Path(find_spec('mmdet').origin).parent / '.mim/configs'
    measured = published.read_index('mmdet', f'configs/{folder}/metafile.yml')[name]['Metadata']
    counts = count(Config.fromfile(configs / folder / f'{name}.py'))
    missing = measured['Training Memory (GB)'] - counts.gigabytes(2, 8)
    assert 0.8 < missing < 1.05


def test_memory_grows_with_the_attention(repo):
    rows = {row.name: row for row in tables.read_table('cifar10', repo).rows}
    plain, ours = (
        count(tables.row_config(rows[f'cifar10_{name}-20'], repo)) for name in ('plain', 'dla_b')
    )
    assert plain.parameters == plain.learning < ours.parameters
    assert plain.saved < ours.saved
    assert (plain.epochs, plain.validations, plain.states) == (180, 180, 1)


def test_frozen_parameters_do_not_learn(repo):
    counts = count(first_run('coco', repo).config())
    assert 0 < counts.parameters - counts.learning < 0.01 * counts.parameters


@pytest.mark.parametrize('name', ['coco', 'coco_masks', 'imagenet'])
def test_neighbours_are_those_of_the_installed_libraries(name):
    others = {other.name: other for other in published.neighbours(name)}
    assert len(others) == 4
    library = 'mmpretrain' if name == 'imagenet' else 'mmdet'
    root = Path(find_spec(library).origin).parent / '.mim'
    for other in others.values():
        source = other.source.split(', ')[1]
        assert other.source.startswith(f'{library} ')
        models = yaml.safe_load((root / source).read_text())['Models']
        (model,) = (model for model in models if model['Name'] == other.name)
        metrics = {k: v for result in model['Results'] for k, v in result['Metrics'].items()}
        assert sorted(other.values.values()) == sorted(metrics.values())


def test_no_neighbours_without_the_library(monkeypatch):
    published.read_index.cache_clear()
    monkeypatch.setattr(published, 'find_spec', lambda name: None)
    assert published.neighbours('coco') == []
    published.read_index.cache_clear()


def test_dry_run(tool, repo, monkeypatch, capsys):
    monkeypatch.chdir(repo)
    argv = ['--dry-run', '--table', 'cifar10', '--rows', 'cifar10_dla_b-56', '--seeds', '4']
    tool('reproduce')([*argv, '--tflops', '20', '--nodes', '4'])
    text = capsys.readouterr().out
    assert '| cifar10_dla_b-56 | 0.80 | 0.0994 | 180 |' in text
    assert '20 TFLOP/s' in text
    assert 'hours on 1 / 8 / 32 GPUs' in text
    assert text.count('NNODES=4') == 4
    assert 'configs/cifar10_dla_b.py' in text and 'model.backbone.depth=56' in text


@pytest.mark.parametrize(
    ('name', 'epochs'), [('nuclei', 3), ('bccd', 3), ('digits', 12), ('short_cifar10', 6)]
)
def test_dry_run_of_what_a_core_trains(tool, repo, monkeypatch, capsys, name, epochs):
    monkeypatch.chdir(repo)
    table = tables.read_table(name, repo)
    rows = [row.name for row in table.rows if row.name.endswith(('plain', 'dla_l'))]
    tool('reproduce')(['--dry-run', '--table', name, '--rows', *rows, '--seeds', '0', '1'])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'## {table.title} (--table {name}), seeds 0, 1'
    commands = [line for line in lines if line.startswith('python tools/train.py')]
    assert len(commands) == 4  # for one process alone
    for row in rows:
        assert any(line.startswith(f'| {row} |') and f'| {epochs} |' in line for line in lines)
        assert sum(f'/{row}/seed1' in line for line in commands) == 1


@pytest.mark.parametrize('name', ['nuclei', 'bccd'])
def test_the_control_is_as_large_as_dla_l(repo, name):
    """Neither smaller in parameters or multiply-adds, nor much larger."""
    table = tables.read_table(name, repo)
    sizes = {row.name: size_of(table, row, repo) for row in table.rows[:4]}
    control, dla = sizes[f'{name}_deeper'], sizes[f'{name}_dla_l']
    assert 1 <= control.parameters / dla.parameters < 1.05
    assert 1 <= control.macs / dla.macs < 1.05
