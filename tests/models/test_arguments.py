"""Checks of arguments, at their limits and with the nearest right words."""

import numpy as np
import pytest

from mmdla.models.arguments import (
    check_cfg,
    check_choice,
    check_finite,
    check_int,
    check_names,
    check_rate,
    hint,
    is_sequence,
)


def test_nearest_words():
    known = ['reduction', 'form', 'context']
    assert hint('reductoin', known) == ", did you mean 'reduction'?"
    assert hint('contxt', known) == ", did you mean 'context'?"
    assert hint(3, known) == hint('xyz', known) == ''


class Base:
    def __init__(self, width=1, depth=2):
        pass


class Derived(Base):
    def __init__(self, height=3, **kwargs):
        pass


class Closed(Base):
    def __init__(self, height=3):
        pass


def test_names_of_arguments():
    check_names('a', Derived, ['height', 'width', 'type'], also=('type',))
    for wrong, words in (
        ('hieght', r"^a\.hieght: Derived has no such argument, did you mean 'height'\?$"),
        ('wdith', r"did you mean 'width'\?$"),
        ('zzz', r"it takes \['depth', 'height', 'width'\]$"),
    ):
        with pytest.raises(TypeError, match=words):
            check_names('a', Derived, [wrong])
    with pytest.raises(TypeError, match=r"^width: Closed .*it takes \['height'\]$"):
        check_names('', Closed, ['width'])
    check_names('a', Closed, ['width'], Base.__init__)


@pytest.mark.parametrize(
    ('value', 'limits', 'error'),
    [
        (1, {}, None),
        (0, {}, ValueError),
        (-1, dict(minimum=-1), None),
        (-2, dict(minimum=-1), ValueError),
        (3, dict(maximum=3), None),
        (4, dict(maximum=3), ValueError),
        (np.int64(2), {}, None),
        (True, {}, TypeError),
        (np.bool_(True), {}, TypeError),
        (2.0, {}, TypeError),
        (None, {}, TypeError),
    ],
    ids=str,
)
def test_integers(value, limits, error):
    if error is None:
        checked = check_int('n', value, **limits)
        assert checked == value and type(checked) is int
    else:
        with pytest.raises(error, match=r'^n must be .*got '):
            check_int('n', value, **limits)


def test_rates():
    for value in (0, 0.0, 0.5, np.float32(0.25), 1 - 1e-9):
        assert check_rate('p', value) == value and type(check_rate('p', value)) is float
    for value in (1, 1.0, -1e-9, float('nan')):
        with pytest.raises(ValueError, match=r'p must be a number in \[0, 1\)'):
            check_rate('p', value)
    for value in (True, '0.5', None):
        with pytest.raises(TypeError, match=r'p must be a number in \[0, 1\)'):
            check_rate('p', value)


def test_choices():
    assert check_choice('depth', np.int64(18), (18, 50)) == 18
    for wrong in (18.0, True, '18', None):
        with pytest.raises(ValueError, match=r'depth must be one of \(18, 50\), got '):
            check_choice('depth', wrong, (18, 50))
    with pytest.raises(ValueError, match="did you mean 'released'"):
        check_choice('form', 'relaesed', ('released', 'shared'))


def test_sequences():
    for value in ([], (1,), range(3), np.zeros(3)):
        assert is_sequence(value)
    for value in ('ab', b'ab', bytearray(2), {1}, {1: 2}, 3, None, np.zeros((2, 2)), np.zeros(())):
        assert not is_sequence(value)


@pytest.mark.parametrize(
    ('value', 'error', 'words'),
    [
        (None, TypeError, "cfg must be a dict with a 'type', got None"),
        ([], TypeError, "cfg must be a dict with a 'type', got"),
        ({}, ValueError, "cfg must be a dict with a 'type', got"),
        (dict(type=''), TypeError, "cfg: 'type' must be a name or a class, got ''"),
        (dict(type=3), TypeError, "cfg: 'type' must be a name or a class, got 3"),
        ({'type': 'BN', 3: 4}, TypeError, 'cfg must have names as keys, got 3'),
        (dict(type='BN', a=[1.0, float('inf')]), ValueError, r"cfg\['a'\]\[1\] must be finite"),
        (dict(type='BN', a=dict(b=float('nan'))), ValueError, r"cfg\['a'\]\['b'\] must be finite"),
    ],
    ids=str,
)
def test_configs(value, error, words):
    with pytest.raises(error, match=words):
        check_cfg('cfg', value)


def test_configs_are_copied():
    given = dict(type=Base, a=(1, 2.5))
    assert check_cfg('cfg', given) == given and check_cfg('cfg', given) is not given
    assert check_cfg('cfg', None, optional=True) is None
    check_finite('x', 1.5)
