"""Whatever MMEngine puts into the state of a training comes back, and nothing of it is executed."""

import copy
import random
import shutil

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import PARAM_SCHEDULERS
from test_resume import Execute, training_state
from torch import nn
from toy_training import ToyModel, toy_runner

from mmdla.checkpoint import CheckpointError, restricted
from mmdla.checkpoint.restricted import restricted_loading
from mmdla.checkpoint.resume import load_training_state
from mmdla.engine import AtomicCheckpointHook

ARGUMENTS = dict(
    Step=dict(step_size=2),
    MultiStep=dict(milestones=[2, 3]),
    Exponential=dict(gamma=0.9),
    CosineAnnealing=dict(T_max=8),
    OneCycle=dict(eta_max=0.1, total_steps=8),
    CosineRestart=dict(periods=[2, 6], restart_weights=[1, 0.5], eta_min=0.01),
    ReduceOnPlateau=dict(patience=1),
)
KINDS = ('LR', 'Momentum', 'ParamScheduler')


def make_scheduler(name, optimizer, **more):
    kind = next(kind for kind in KINDS if name.endswith(kind))
    arguments = dict(ARGUMENTS.get(name.removesuffix(kind), {}), **more)
    if kind == 'ParamScheduler':
        arguments['param_name'] = 'lr'
    return PARAM_SCHEDULERS.get(name)(optimizer, **arguments)


def sgd():
    torch.manual_seed(0)
    return torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1, momentum=0.9)


def step(scheduler, optimizer, number):
    optimizer.step()
    if 'Plateau' in type(scheduler).__name__:
        scheduler.step(dict(loss=1.0 + 0.1 * number))
    else:
        scheduler.step()
    return [optimizer.param_groups[0][name] for name in ('lr', 'momentum')]


def assert_goes_on(name, path, protocol=2, **more):
    optimizer = sgd()
    scheduler = make_scheduler(name, optimizer, **more)
    for number in range(3):
        step(scheduler, optimizer, number)
    state = training_state(
        param_schedulers=[scheduler.state_dict()], their_optimizer=optimizer.state_dict()
    )
    torch.save(state, path, pickle_protocol=protocol)
    loaded = load_training_state(str(path))
    resumed_optimizer = sgd()
    resumed = make_scheduler(name, resumed_optimizer, **more)
    resumed_optimizer.load_state_dict(loaded['their_optimizer'])
    resumed.load_state_dict(loaded['param_schedulers'][0])
    for number in range(3, 7):
        expected = step(scheduler, optimizer, number)
        assert step(resumed, resumed_optimizer, number) == expected
    assert set(vars(resumed)) == set(vars(scheduler))


SCHEDULERS = sorted(n for n in PARAM_SCHEDULERS.module_dict if n.endswith(KINDS))


def test_all_schedulers_are_tried():
    assert len(SCHEDULERS) >= 29 and 'OneCycleLR' in SCHEDULERS


@pytest.mark.parametrize('name', SCHEDULERS)
def test_schedulers_go_on(name, tmp_path):
    assert_goes_on(name, tmp_path / 'epoch_3.pth')


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize('options', [dict(anneal_strategy='linear'), dict(three_phase=True)])
def test_one_cycle_in_every_form(protocol, options, tmp_path):
    assert_goes_on('OneCycleLR', tmp_path / 'epoch_3.pth', protocol, **options)


def test_random_states_and_nested_configs(tmp_path):
    generator = np.random.RandomState(3)
    state = dict(
        python=random.Random(3).getstate(),
        numpy=generator.get_state(),
        torch=torch.Generator().manual_seed(3).get_state(),
        metainfo=ConfigDict(classes=('a', 'b'), palette=ConfigDict(a=[1, 2])),
    )
    torch.save(training_state(more=state), tmp_path / 'epoch_3.pth')
    loaded = load_training_state(str(tmp_path / 'epoch_3.pth'))['more']
    assert loaded['python'] == state['python'] and loaded['metainfo'] == state['metainfo']
    assert torch.equal(loaded['torch'], state['torch'])
    other = np.random.RandomState(4)
    other.set_state(loaded['numpy'])
    assert other.rand() == generator.rand()


class Amp(AmpOptimWrapper):
    """Mixed precision with a scaler of losses, on the CPU."""

    def __init__(self, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=4.0, growth_interval=3)
        self._scale_update_param, self.cast_dtype = None, torch.bfloat16


def everything(tmp_path, epochs, **options):
    """A run with averages of the weights, a scaler and several schedules."""
    runner = toy_runner(
        tmp_path,
        hooks=[dict(type='EMAHook', momentum=0.1)],
        epochs=epochs,
        optim_wrapper=Amp(
            optimizer=torch.optim.AdamW(options.setdefault('model', ToyModel()).parameters(), 0.01)
        ),
        param_scheduler=[
            dict(type='LinearLR', start_factor=0.5, by_epoch=False, end=2),
            dict(type='OneCycleLR', eta_max=0.02, total_steps=12, by_epoch=False),
            dict(type='CosineAnnealingMomentum', T_max=3),
        ],
        **options,
    )
    with restricted_loading():
        runner.train()
    return load_training_state(str(tmp_path / f'epoch_{epochs}.pth'))


def assert_same(a, b, name=''):
    assert type(a) is type(b), name
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), name
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), name
        for key in a:
            assert_same(a[key], b[key], f'{name}.{key}')
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), name
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f'{name}.{i}')
    else:
        assert a == b, name


def test_a_run_with_everything_goes_on_exactly(tmp_path):
    torch.manual_seed(1)
    through = everything(tmp_path / 'through', 3)
    (tmp_path / 'stopped').mkdir()
    shutil.copy(tmp_path / 'through/epoch_1.pth', tmp_path / 'stopped')
    torch.manual_seed(2)
    resumed = everything(tmp_path / 'stopped', 3, resume=True)
    parts = ('state_dict', 'optimizer', 'param_schedulers', 'ema_state_dict')
    assert set(parts) <= through.keys() and 'loss_scaler' in through['optimizer']
    for part in parts:
        assert_same(through[part], resumed[part], part)


def test_the_scheduler_of_a_file_gives_nothing_else(tmp_path):
    """Of the class that is let in only the two functions can be had, and no object of it."""
    from mmengine.optim import OneCycleParamScheduler as Scheduler

    path, target = tmp_path / 'epoch_3.pth', str(tmp_path / 'executed')
    for attack in (
        Execute(getattr, Scheduler, '__init__'),
        Execute(getattr, Scheduler, '__globals__'),
        Execute(getattr, Execute(getattr, Scheduler, '_annealing_cos'), '__globals__'),
        Execute(Scheduler, target),
    ):
        torch.save(training_state(extra=attack), path)
        with pytest.raises(CheckpointError):
            load_training_state(str(path))


class Polluting(HistoryBuffer):
    """A history with methods that another process registered."""

    def __reduce__(self):
        methods = dict(mean=HistoryBuffer.max, extra=HistoryBuffer.min)
        state = dict(vars(self), statistics_methods=methods)
        return HistoryBuffer, (), state


@pytest.mark.parametrize('protocol', [2, 4])
def test_reading_changes_no_other_history(tmp_path, protocol):
    """MMEngine's ``__setstate__`` changes the methods of the class, for the whole process."""
    before = dict(HistoryBuffer._statistics_methods)
    state = training_state(extra=Polluting([1.0, 3.0], [1, 1]))
    torch.save(state, tmp_path / 'epoch_3.pth', pickle_protocol=protocol)
    loaded = load_training_state(str(tmp_path / 'epoch_3.pth'))
    assert HistoryBuffer._statistics_methods == before
    assert type(loaded['extra']) is HistoryBuffer and loaded['extra'].mean() == 2
    torch.save(loaded, tmp_path / 'epoch_4.pth')  # as a resumed run saves it again
    again = load_training_state(str(tmp_path / 'epoch_4.pth'))
    assert again['message_hub']['log_scalars']['loss'].statistics('mean') == 0.375


def test_a_config_in_the_file_is_not_run(tmp_path):
    """``Runner.resume`` runs ``meta['config']``, which older versions wrote, as a program."""
    toy_runner(tmp_path, epochs=1).train()
    path = tmp_path / 'epoch_1.pth'
    checkpoint = load_training_state(str(path))
    checkpoint['meta']['config'] = f'import os\nos.mkdir({str(tmp_path / "executed")!r})'
    for hook in ('AtomicCheckpointHook', 'CheckpointHook'):
        torch.save(checkpoint, path)
        runner = toy_runner(tmp_path, dict(type=hook), resume=True, epochs=2)
        with restricted_loading():
            runner.train()
        assert runner.epoch == 2
        assert not (tmp_path / 'executed').exists()


def test_a_config_that_is_left_out_is_told(monkeypatch):
    told = []
    monkeypatch.setattr(restricted, 'print_log', lambda text, *_: told.append(text))
    checkpoint = dict(meta=dict(config='import os', epoch=1), state_dict={})
    assert restricted.without_program(checkpoint) == dict(meta=dict(epoch=1), state_dict={})
    assert len(told) == 1 and 'meta.config' in told[0]
    for other in (dict(meta=dict(epoch=1)), dict(meta=None), dict(), [1]):
        assert restricted.without_program(copy.deepcopy(other)) == other
    assert len(told) == 1


class OtherModel(ToyModel):
    def __init__(self, width=4):
        super().__init__()
        self.block2 = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 4))
        self.head = nn.Linear(4, 1)


def test_another_model_is_not_resumed(tmp_path):
    toy_runner(tmp_path, epochs=1).train()
    model = OtherModel(5)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match='another model') as caught:
        toy_runner(tmp_path, model=model, resume=True).train()
    text = str(caught.value)
    assert 'head.weight' in text and 'block2.0.weight (4, 4) (model: (5, 4))' in text
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(CheckpointError, match=r'not in the model \(2\): head.weight, head.bias'):
        toy_runner(tmp_path / 'other', model=OtherModel(), epochs=1).train()
        narrow = OtherModel()
        del narrow.head
        toy_runner(tmp_path / 'other', model=narrow, resume=True).train()


@pytest.mark.parametrize('epochs', [1, 2])
def test_a_finished_run_says_so(tmp_path, epochs):
    toy_runner(tmp_path, epochs=1).train()
    runner = toy_runner(tmp_path, resume=True, epochs=epochs)
    told = []
    runner.logger.warning = told.append
    assert any(isinstance(hook, AtomicCheckpointHook) for hook in runner.hooks)
    runner.train()
    said = [line for line in told if 'nothing to do' in line and 'epoch 1 of 1' in line]
    assert len(said) == (epochs == 1)
