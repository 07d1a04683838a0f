"""The parts of ``tools/check_gpu.py`` that need no GPU, on the CPU's kernels."""

import json

import pytest
import torch

from mmdla.analysis import gpu
from mmdla.analysis.benchmark import Case
from mmdla.errors import InputError


@pytest.mark.parametrize('training', [False, True], ids=['running', 'batch'])
@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_values_are_right(dtype, training):
    values = gpu.check_values('cpu', 'DLALight', dtype, 'channels_last', training)
    assert values.is_right
    assert 0 < values.error < (1e-3 if dtype == 'float32' else 1)


def test_wrong_values_are_seen(monkeypatch):
    """A kernel that is one in a hundred off, in one of the gradients."""
    outcome = gpu.outcome

    def spoilt(model, x, dtype):
        found = outcome(model, x, dtype)
        if model.layer1.attention.ops == 'fast':
            found[-1] = 1.01 * found[-1]
        return found

    monkeypatch.setattr(gpu, 'outcome', spoilt)
    assert not gpu.check_values('cpu', 'MRLALight', 'float32', 'nchw', True).is_right


def test_largest_error():
    one, two = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1.0])
    assert gpu.largest_error([one, 1.5 * two], [one, two]) == pytest.approx(0.5)
    assert gpu.largest_error([one, 1e-12 * two], [one, 0 * two]) == 0


@pytest.fixture
def check(tool, monkeypatch):
    """The script, with one combination and one case."""
    main = tool('check_gpu')
    monkeypatch.setattr(gpu, 'KINDS', ('MRLALight',))
    monkeypatch.setattr(gpu, 'LAYOUTS', dict(nchw=torch.contiguous_format))
    case = Case('cifar20', 'MRLALight', 'train', (2, 3, 16, 16))
    monkeypatch.setitem(main.__globals__, 'SMALL', [case])
    return main


def test_script(check, tmp_path, capsys):
    check(['--device', 'cpu', '--rounds', '1', '--out', str(tmp_path)])
    result = json.loads((tmp_path / 'gpu.json').read_text())
    assert [v['is_right'] for v in result['values']] == 4 * [True]
    assert [row['model'] for row in result['rows']] == ['plain', 'reference', 'auto']
    assert (tmp_path / 'gpu.png').stat().st_size > 1000
    text = (tmp_path / 'gpu.md').read_text()
    assert 'Values: 4 combinations, 0 wrong.' in text and '| plain | 1.00 (1.00–1.00) |' in text


def test_no_time_is_left(check, tmp_path, monkeypatch):
    monkeypatch.setitem(check.__globals__, 'check_values', lambda device: [])
    seconds = iter((0.0, 1e6))
    monkeypatch.setitem(check.__globals__, 'monotonic', lambda: next(seconds))
    check(['--device', 'cpu', '--out', str(tmp_path)])
    assert 'Left out for want of time: cifar20 MRLALight train' in (tmp_path / 'gpu.md').read_text()


def test_what_it_refuses(check, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(InputError, match='PyTorch finds no GPU'):
        check(['--out', str(tmp_path)])
    wrong = gpu.Values('DLALight', 'float32', 'nchw', True, 0.5, 1e-6)
    monkeypatch.setitem(check.__globals__, 'check_values', lambda device: [wrong])
    with pytest.raises(InputError, match='1 of 1 combinations have wrong values'):
        check(['--device', 'cpu', '--rounds', '1', '--out', str(tmp_path)])
    assert (tmp_path / 'gpu.json').exists(), 'what was found is kept'
