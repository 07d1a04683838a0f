"""Our models compute what the authors' released models compute."""

import golden_models
import numpy as np
import pytest
import torch

from mmdla import DSU
from mmdla.checkpoint import convert_released

NAMES = golden_models.names()
UNITS = [n for n in NAMES if n.startswith('dsu')]
MODELS = [n for n in NAMES if n not in UNITS]


def assert_close(actual, expected, what, tolerance=1e-6):
    actual = actual.detach().numpy() if isinstance(actual, torch.Tensor) else np.asarray(actual)
    assert actual.shape == expected.shape, what
    if not expected.size:  # running means of a model without batch norm
        return
    scale = np.abs(expected).max()
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, f'{what}: {error:.2e} of the largest magnitude'


def test_fixtures_are_there():
    assert MODELS and UNITS, f'no fixtures in {golden_models.GOLDEN}'


@pytest.mark.parametrize('name', UNITS)
def test_recurrent_unit(name):
    fixture = golden_models.Fixture(name)
    unit = DSU(fixture.json['channels'], fixture.json['reduction']).double()
    unit.load_state_dict(convert_released(fixture.released))
    state = None
    steps = sum(key.startswith('h') for key in fixture.numbers)
    for step in range(1, steps + 1):
        y = torch.from_numpy(
            fixture.image(f'input:dsu:{step - 1}', fixture.numbers['h1'].shape)
        ).double()
        state = unit(y, state)
        assert_close(state[0], fixture.numbers[f'h{step}'], f'h{step}')
        assert_close(state[1], fixture.numbers[f'c{step}'], f'c{step}')
    y = torch.from_numpy(fixture.image('input:dsu:refresh', fixture.numbers['h1'].shape)).double()
    assert_close(unit(y, state)[0], fixture.numbers['refresh'], 'refresh')


@pytest.mark.parametrize('ops', ['reference', 'fast'])
@pytest.mark.parametrize('name', MODELS)
def test_model(name, ops, monkeypatch):
    monkeypatch.setenv('MMDLA_OPS', ops)
    fixture = golden_models.Fixture(name)
    numbers = fixture.numbers
    model = golden_models.build(fixture.json).double()
    model.load_state_dict(golden_models.convert(fixture, model), strict=True)
    x = fixture.input().double().requires_grad_()

    model.eval()
    with torch.no_grad():
        for i, out in enumerate(model(x)):
            assert_close(out, numbers[f'eval_out{i}'], f'eval_out{i}')

    model.train()
    out = model(x)[-1]
    assert_close(out, numbers['train_out'], 'train_out')
    (out * fixture.cotangent(out.shape).double()).sum().backward()
    assert_close(x.grad, numbers['grad_input'], 'grad_input')
    ours = our_names(fixture, model)
    parameters = dict(model.named_parameters())
    assert sorted(parameters) == sorted(our for n in fixture.json['params'] for our in ours[n])
    norms = [
        sum(parameters[our].grad.square().sum().item() for our in ours[n]) ** 0.5
        for n in fixture.json['params']
    ]
    assert_close(norms, numbers['grad_norms'], 'grad_norms')
    buffers = dict(model.named_buffers())
    norms = [buffers[ours[n][0]].norm().item() for n in ours if n.endswith('running_mean')]
    assert_close(norms, numbers['running_mean_norms'], 'running_mean_norms')


def our_names(fixture, model):
    """Released name to ours: one, or several where a tensor is cut into views."""
    by_storage = {v.untyped_storage().data_ptr(): n for n, v in fixture.released.items()}
    assert len(by_storage) == len(fixture.released)
    unused = fixture.json.get('unused') or ()
    ours = {name: [] for name in fixture.released if name not in unused}
    for our, value in golden_models.convert(fixture, model).items():
        ours[by_storage[value.untyped_storage().data_ptr()]].append(our)
    assert all(ours.values())
    return ours
