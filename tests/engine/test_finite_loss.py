"""A NaN stops the training before it reaches the weights, and its origin is named."""

import math
import re

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from toy_training import ToyModel, toy_runner

from mmdla.errors import TrainingError

GUARD = dict(type='FiniteLossHook')


class Break(Hook):
    """Do something to the runner at the start of iteration 5, the first of the second epoch."""

    def __init__(self, what):
        self.what = what

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 4:
            self.what(runner.model, data_batch)
            self.before = {k: v.clone() for k, v in runner.model.named_parameters()}


def message(tmp_path, what, model=None, **kwargs) -> str:
    """What stops the training; the weights have to be those of before, a checkpoint too."""
    runner = toy_runner(tmp_path, hooks=[GUARD], model=model, **kwargs)
    breaking = Break(what)
    runner.register_hook(breaking)
    with pytest.raises(TrainingError) as caught:
        runner.train()
    assert runner.iter == 4
    for name, parameter in runner.model.named_parameters():
        assert torch.equal(parameter.nan_to_num(), breaking.before[name].nan_to_num()), name
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    text = str(caught.value)
    assert 'iteration 5 (epoch 2)' in text
    assert str(tmp_path / 'epoch_1.pth') in text
    return text


@pytest.mark.parametrize(('value', 'word'), [(math.nan, 'NaN'), (math.inf, 'infinite values')])
def test_in_an_image(tmp_path, value, word):
    def what(model, batch):
        batch['inputs'][1, 2] = value

    text = message(tmp_path, what)
    assert f'it is in the input data: inputs holds {word}' in text


@pytest.mark.parametrize('module', ['block1.0', 'block1.1', 'block2.0'])
def test_in_a_weight(tmp_path, module):
    def what(model, batch):
        model.get_submodule(module).weight.data[1] = math.nan

    text = message(tmp_path, what)
    assert 'loss_square: nan, loss_abs: nan' in text
    assert f'NaN first in the output of {module} (' in text
    assert 'its weight holds NaN' in text


def test_in_one_loss(tmp_path):
    def what(model, batch):
        model.square = lambda x: x.sum() * math.inf

    text = message(tmp_path, what)
    assert 'loss_square: ' in text and 'inf' in text
    assert 'loss_abs' not in text
    assert 'arises in the calculation of the loss' in text


def test_a_metric_that_is_no_loss_may_be_nan(tmp_path):
    class Metric(ToyModel):
        def forward(self, *args, **kwargs):
            return dict(super().forward(*args, **kwargs), accuracy=torch.tensor(math.nan))

    toy_runner(tmp_path, hooks=[GUARD], model=Metric(), epochs=1).train()


def test_a_module_that_computes_it_from_finite_numbers(tmp_path):
    class Log(nn.Module):
        def forward(self, x):
            return (-1 - x.abs()).log()

    def what(model, batch):
        model.block1[2] = Log()

    text = message(tmp_path, what)
    assert 'NaN first in the output of block1.2 (Log), from finite inputs and weights' in text


def test_between_modules(tmp_path):
    class Between(ToyModel):
        divisor = 1.0

        def forward(self, inputs, data_samples=None, mode='loss'):
            return super().forward(inputs / self.divisor, data_samples, mode)

    def what(model, batch):
        model.divisor = 0.0

    text = message(tmp_path, what, model=Between())
    assert 'first in the model, in what it passes to block1' in text


def test_in_the_gradient_alone(tmp_path, recwarn):
    """The square root has no derivative at 0."""

    def what(model, batch):
        model.square = lambda x: (x - x).sum().sqrt() + x.mean()

    text = message(tmp_path, what)
    assert 'the loss is finite, but not the gradients of ' in text
    assert 'block2.0.bias (NaN)' in text
    assert re.search(r"Function '\w+Backward0' returned nan values", text)
    assert not any('Error detected' in str(w.message) for w in recwarn), 'the message says it'


def test_gradients_may_be_left_out(tmp_path):
    runner = toy_runner(tmp_path, hooks=[dict(GUARD, gradients=False)], epochs=1)
    runner.model.square = lambda x: (x - x).sum().sqrt() + x.mean()
    with pytest.raises(TrainingError, match='the loss is not finite'):
        runner.train()
    with pytest.raises(TypeError, match='gradients must be True or False'):
        toy_runner(tmp_path, hooks=[dict(GUARD, gradients=1)])


def test_no_checkpoint_of_nan(tmp_path):
    """Whoever brought it in, after the last check of the epoch."""

    class Spoil(Hook):
        def after_train_epoch(self, runner):
            if runner.epoch == 1:
                runner.model.block2[0].bias.data[0] = math.nan

    runner = toy_runner(tmp_path, hooks=[GUARD])
    runner.register_hook(Spoil())
    with pytest.raises(TrainingError, match=r'block2\.0\.bias holds NaN'):
        runner.train()
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']


@pytest.mark.parametrize('value', [math.nan, math.inf])
@pytest.mark.parametrize('is_buffer', [False, True])
def test_which_values_no_checkpoint_holds(tmp_path, value, is_buffer):
    """Infinite ones in a parameter; buffers may hold them, as bounds, but no NaN."""

    class Spoil(Hook):
        def after_train_epoch(self, runner):
            if is_buffer:
                runner.model.bound.fill_(value)
            else:
                runner.model.block2[0].bias.data[0] = value

    model = ToyModel()
    model.register_buffer('bound', torch.zeros(()))
    runner = toy_runner(tmp_path, hooks=[GUARD], model=model, epochs=1)
    runner.register_hook(Spoil())
    if is_buffer and value == math.inf:
        runner.train()
        assert (tmp_path / 'epoch_1.pth').is_file()
        return
    name = 'bound' if is_buffer else r'block2\.0\.bias'
    word = 'NaN' if math.isnan(value) else 'infinite values'
    with pytest.raises(TrainingError, match=f'{name} holds {word}'):
        runner.train()
    assert not list(tmp_path.glob('*.pth'))


class Sparse(ToyModel):
    """With an embedding whose gradient is sparse."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(5, 4, sparse=True)

    def forward(self, inputs, data_samples=None, mode='loss'):
        rows = self.rows(torch.arange(len(inputs)))
        return super().forward(inputs + rows, data_samples, mode)


def test_sparse_gradients_are_left_alone(tmp_path):
    """PyTorch cannot take their norm; those of the other parameters are still looked at."""
    plain = dict(optimizer=dict(type='SGD', lr=0.1))
    toy_runner(
        tmp_path / 'fine', hooks=[GUARD], model=Sparse(), epochs=1, optim_wrapper=plain
    ).train()

    def what(model, batch):
        model.square = lambda x: (x - x).sum().sqrt() + x.mean()

    text = message(tmp_path / 'broken', what, model=Sparse(), optim_wrapper=plain)
    assert 'the loss is finite, but not the gradients of ' in text and 'rows' not in text


@pytest.mark.parametrize('accumulate', [1, 3])
def test_the_training_is_the_same_with_it(tmp_path, accumulate):
    optim = dict(
        optimizer=dict(type='AdamW', lr=0.01),
        accumulative_counts=accumulate,
        clip_grad=dict(max_norm=0.1),
    )
    weights = []
    for hooks in ([], [GUARD]):
        runner = toy_runner(tmp_path, hooks=hooks, optim_wrapper=optim)
        runner.train()
        weights.append(runner.model.state_dict())
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert 'parse_losses' not in vars(runner.model)
    assert 'step' not in vars(runner.optim_wrapper)


def test_accumulated_gradients(tmp_path):
    def what(model, batch):
        batch['inputs'][0, 0] = math.nan

    optim = dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=3)
    assert 'input data' in message(tmp_path, what, optim_wrapper=optim)


@OPTIM_WRAPPERS.register_module()
class ScaledOnCPU(OptimWrapper):
    """``AmpOptimWrapper`` asks for a GPU; its scaler and its steps work without one."""

    backward, step = AmpOptimWrapper.backward, AmpOptimWrapper.step

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=2.0**127)
        self._scale_update_param = None


def test_infinite_gradients_under_a_scaler_are_normal(tmp_path):
    optim = dict(type='ScaledOnCPU', optimizer=dict(type='SGD', lr=0.1))
    model = ToyModel()
    model.square = lambda x: 100 * x.square().mean()
    runner = toy_runner(tmp_path, hooks=[GUARD], model=model, optim_wrapper=optim, epochs=5)
    runner.train()
    assert runner.iter == 20
    scale = runner.optim_wrapper.loss_scaler.get_scale()
    assert 0 < scale < 2.0**127  # steps were skipped
    assert all(p.isfinite().all() for p in runner.model.parameters())

    def what(model, batch):
        batch['inputs'][0, 0] = math.nan

    assert 'input data' in message(tmp_path / 'nan', what, optim_wrapper=optim)
