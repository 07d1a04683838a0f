"""One batch of validation before training: it finds mistakes and leaves no trace."""

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.registry import METRICS
from toy_training import ToyData, ToyModel, toy_runner

from mmdla.engine import ValidationCheckHook, validation_check
from mmdla.errors import InputError, TrainingError

CHECK = dict(type='ValidationCheckHook')
SEEN = []


@METRICS.register_module()
class MeanOfInputs(BaseMetric):
    """Notes what it is asked for; ``broken`` names the method that fails."""

    def __init__(self, broken=''):
        super().__init__()
        self.broken = broken

    def process(self, data_batch, data_samples):
        if self.broken == 'process':
            raise KeyError('scale_factor')
        torch.rand(1), random.random(), np.random.rand()
        self.results += [row.mean().item() for row in data_samples]

    def compute_metrics(self, results):
        if self.broken == 'compute_metrics':
            raise ValueError('no such class')
        SEEN.append(len(results))
        return dict(mean=sum(results) / len(results))


class Careless(ToyModel):
    """In validation it draws random numbers and counts in a buffer."""

    def __init__(self, error=None):
        super().__init__()
        self.register_buffer('calls', torch.zeros(()))
        self.error = error

    def val_step(self, data):
        if self.error is not None:
            raise self.error
        assert not any(module.training for module in self.modules())
        self.calls += 1
        return self.block2(self.block1(data['inputs'] + 0.1 * torch.rand(len(data['inputs']), 4)))


def run(folder, hooks=(), model=None, broken='', **kwargs):
    SEEN.clear()
    torch.manual_seed(0)  # of the weights
    model = model or Careless()
    loader = dict(
        batch_size=3,
        dataset=ToyData(),
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='default_collate'),
    )
    runner = toy_runner(
        folder,
        hooks=hooks,
        model=model,
        val_dataloader=loader,
        val_cfg=dict(),
        **dict(dict(val_evaluator=dict(type='MeanOfInputs', broken=broken)), **kwargs),
    )
    runner.train()
    return runner


def test_the_training_is_the_same_with_it(tmp_path):
    """Weights, optimizer, metrics and logs, without a hook that seeds every epoch."""
    runs = []
    for name, hooks in (('without', []), ('with', [CHECK])):
        runner = run(
            tmp_path / name, hooks, default_hooks=dict(checkpoint=dict(type='CheckpointHook'))
        )
        assert SEEN == [3] * bool(hooks) + [8] * 3
        state = torch.load(runner.message_hub.get_info('last_ckpt'), weights_only=False)
        scalars = {k: v.data for k, v in runner.message_hub.log_scalars.items() if 'time' not in k}
        runs.append((state['state_dict'], state['optimizer']['state'], scalars))
    assert all(torch.equal(value, runs[1][0][name]) for name, value in runs[0][0].items())
    assert runs[0][0]['calls'] == 6
    for key, state in runs[0][1].items():
        assert torch.equal(state['momentum_buffer'], runs[1][1][key]['momentum_buffer'])
    assert runs[0][2].keys() == runs[1][2].keys() and 'val/mean' in runs[0][2]
    for name, values in runs[0][2].items():
        np.testing.assert_array_equal(values, runs[1][2][name])


def test_nothing_is_left_of_it(tmp_path):
    """Asked right after it: random numbers, modes, buffers, other hooks, the loop."""

    class Look(Hook):
        priority = 'HIGHEST'
        states = []
        calls = []

        def look(self, runner):
            random_numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()
            modes = [module.training for module in runner.model.modules()]
            hub = copy.deepcopy((runner.message_hub.runtime_info, runner.message_hub.log_scalars))
            loop = runner.val_loop
            others = loop.evaluator.metrics[0].results, id(loop.evaluator), runner.logger.level
            self.states.append(copy.deepcopy((random_numbers, modes, hub, others)))
            assert runner.model.calls == 0

        def before_train(self, runner):
            runner.model.block2.eval()
            self.look(runner)
            ValidationCheckHook().before_train(runner)
            assert SEEN == [3]
            self.look(runner)
            raise InterruptedError

        def before_val_iter(self, *args, **kwargs):
            self.calls.append(args)

    with pytest.raises(InterruptedError):
        run(tmp_path, [Look()])
    first, second = Look.states
    assert torch.equal(first[0][0], second[0][0]) and first[0][1] == second[0][1]
    assert np.array_equal(first[0][2][1], second[0][2][1]) and first[0][2][2:] == second[0][2][2:]
    assert first[1] == second[1] and not all(first[1]) and any(first[1])
    assert repr(first[2]) == repr(second[2]) and first[3] == second[3]
    assert not Look.calls


@pytest.mark.parametrize('broken', ['process', 'compute_metrics'])
def test_a_broken_metric(tmp_path, broken):
    with pytest.raises(TrainingError) as caught:
        run(tmp_path, [CHECK], broken=broken)
    text = str(caught.value)
    expected = "KeyError: 'scale_factor'" if broken == 'process' else 'ValueError: no such class'
    assert expected in text and f'in {broken}' in text and '--no-val-check' in text
    assert not list(tmp_path.glob('*.pth'))


def test_errors_that_say_enough_pass_unchanged(tmp_path):
    error = InputError('this file is damaged')
    with pytest.raises(InputError) as caught:
        run(tmp_path, [CHECK], Careless(error))
    assert caught.value is error


def test_a_run_without_validation(tmp_path):
    toy_runner(tmp_path, hooks=[CHECK], epochs=1).train()


def test_a_data_set_smaller_than_a_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(ToyData, '__len__', lambda self: 2)
    run(tmp_path, [CHECK], epochs=1)
    assert SEEN == [2, 2]


@METRICS.register_module()
class WritesFile(MeanOfInputs):
    """As metrics of MMDetection do where they have a name for it."""

    def __init__(self, outfile_prefix, format_only=False):
        super().__init__()
        self.outfile_prefix, self.format_only = outfile_prefix, format_only

    def compute_metrics(self, results):
        if self.outfile_prefix is not None:
            Path(f'{self.outfile_prefix}.txt').write_text(f'{len(results)} results')
        return {} if self.format_only else super().compute_metrics(results)


def test_metrics_write_no_files(tmp_path):
    """But for those that only write one, which need its name."""

    class Files(Hook):
        priority = 'HIGHEST'

        def before_train(self, runner):
            ValidationCheckHook().before_train(runner)
            self.found = sorted(path.name for path in tmp_path.glob('*.*'))
            raise InterruptedError

    look = Files()
    metrics = [
        dict(type='WritesFile', outfile_prefix=str(tmp_path / 'a')),
        dict(type='WritesFile', outfile_prefix=str(tmp_path / 'b'), format_only=True),
        dict(type='DumpResults', out_file_path=str(tmp_path / 'c.pkl')),
    ]
    with pytest.raises(InterruptedError):
        run(tmp_path / 'run', [look], val_evaluator=metrics)
    assert SEEN == [3]
    assert look.found == ['b.txt']


@pytest.mark.parametrize('rank', [0, 1, 2])
def test_more_processes_than_images(monkeypatch, rank):
    """As MMEngine's sampler hands them out, from the first one again."""
    monkeypatch.setattr(validation_check, 'get_rank', lambda: rank)
    monkeypatch.setattr(validation_check, 'get_world_size', lambda: 3)
    for images, batches in (('a', 'a a a'), ('ab', 'a b a'), ('abcdefghi', 'adg beh cfi')):
        loader = torch.utils.data.DataLoader(images, batch_size=4, collate_fn=''.join)
        assert validation_check._first_batch(loader) == batches.split()[rank]
