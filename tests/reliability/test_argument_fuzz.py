"""Every combination of arguments builds and runs, or is refused by an error that names one."""

import copy
import re
from inspect import signature

import numpy as np
import pytest
import torch
from argument_cases import (
    COMMON,
    NEEDED,
    OF_STAGE,
    TAKES,
    WRONG_IN_BACKBONE,
    WRONG_IN_DSU,
    backbones,
    mixtures,
    spoiled,
    spoiled_attentions,
    units,
    wrong_in_attention,
)
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tally import tally

from mmdla import DSU, DLAResNet, DLAResNet_CIFAR

PARAMETERS = {*signature(DLAResNet).parameters, *signature(DLAResNet_CIFAR).parameters}
SIZES = [(32, 32), (33, 47), (64, 32)]
# what PyTorch's norms and, on one thread, its convolutions say to maps of one pixel
TOO_SMALL = ('Expected more than 1', 'input image is smaller than kernel')
MANY = settings(max_examples=3 * settings.default.max_examples)  # of what is quick
FEW = settings(max_examples=settings.default.max_examples // 3)  # of what builds two networks
BACKBONES = pytest.mark.parametrize('cls', [DLAResNet, DLAResNet_CIFAR], ids=lambda c: c.__name__)


def names_in(value) -> set[str]:
    """Names of arguments in nested configs."""
    if isinstance(value, dict):
        keys = {k for k in value if isinstance(k, str)}
        return keys.union(*map(names_in, value.values()))
    return set().union(*map(names_in, value)) if isinstance(value, (list, tuple)) else set()


def build(cls, args):
    """The module, or the error's message if one of the two allowed errors was raised."""
    before = repr(args)
    try:
        torch.manual_seed(0)
        model = cls(**args)
        model.init_weights()
        return model, None
    except (TypeError, ValueError) as error:
        return None, str(error)
    finally:
        assert repr(args) == before, 'the arguments were changed'


def assert_names(message: str, names) -> None:
    """The message has one of the names in it, as a word."""
    words = set(re.findall(r'\w+', message))
    assert words & set(names), f'{message!r} names none of {sorted(names)}'


def run(model, args, size, batch) -> None:
    """Forward and backward in training mode, then forward in eval mode: all must be finite."""
    torch.manual_seed(1)
    x = torch.randn(batch, args.get('in_channels', 3), *size)
    try:
        outs = model.train()(x)
        if any(out.requires_grad for out in outs):
            sum(out.square().mean() for out in outs if out.requires_grad).backward()
        with torch.no_grad():
            also = model.eval()(x[:1])
    except (ValueError, RuntimeError) as error:
        assume(not any(text in str(error) for text in TOO_SMALL))  # no argument could change it
        raise
    for out, expected in zip(also, outs, strict=True):
        assert out.isfinite().all() and expected.isfinite().all()
        assert out.shape[1:] == expected.shape[1:]
    for name, p in model.named_parameters():
        assert p.isfinite().all() and (p.grad is None or p.grad.isfinite().all()), name


def wrong_backbones():
    """Every wrong value of the table once, for both backbones and for every attention."""
    small = dict(base_channels=4, layer_attention=dict(type='SE', reduction=1))
    for cls, depths in ((DLAResNet, (18, 50)), (DLAResNet_CIFAR, (11, 11))):
        for name, values in WRONG_IN_BACKBONE.items():
            for value in values:
                args = dict(depth=depths[name in ('dcn', 'plugins')], **small)
                stages = 4 if cls is DLAResNet else 3
                if name == 'dcn':
                    args['stage_with_dcn'] = (True,) * stages
                yield name, cls, args | {name: value}
    one_stage = dict(depth=11, base_channels=4, num_stages=1, strides=(1,), dilations=(1,))
    for kind, own in TAKES.items():
        right = {name: value for name, value in NEEDED.items() if name in own}
        for name in own + OF_STAGE.get(kind, []) + COMMON:
            for value in wrong_in_attention(kind)[name]:
                attention = dict(type=kind, **right) | {name: value}
                yield name, DLAResNet_CIFAR, dict(one_stage, layer_attention=attention)
    for name, values in WRONG_IN_DSU.items():
        for value in values:
            yield name, DSU, dict(channels=8, reduction=2) | {name: value}


def test_every_wrong_value_is_refused_by_name():
    for name, cls, args in wrong_backbones():
        _, message = build(cls, args)
        assert message is not None, f'accepted: {cls.__name__}(**{args})'
        assert_names(message, {name})
        tally('arguments', 'one wrong: refused', (cls.__name__, args))


@BACKBONES
@given(data=st.data())
def test_arguments_that_suit_each_other_run(cls, data):
    args = data.draw(backbones(cifar=cls is DLAResNet_CIFAR))
    model, message = build(cls, args)
    assert message is None
    run(model, args, data.draw(st.sampled_from(SIZES)), data.draw(st.sampled_from([1, 2])))
    tally('arguments', 'right: built and ran', (cls.__name__, args))


def as_numpy(value):
    """The same arguments as somebody has them who computed them: scalars and arrays of NumPy."""
    if isinstance(value, dict):
        return {key: as_numpy(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        if value and all(type(item) is int for item in value):
            return np.array(value)
        return [as_numpy(item) for item in value]
    kinds = {bool: np.bool_, int: np.int64, float: np.float64}
    return kinds[type(value)](value) if type(value) in kinds else value


@BACKBONES
@FEW
@given(data=st.data())
def test_numbers_of_numpy_are_numbers(cls, data):
    """Such a network has the parameters of the one with Python's own, bit for bit, and runs."""
    args = data.draw(backbones(cifar=cls is DLAResNet_CIFAR))
    (plain, _), (model, message) = build(cls, args), build(cls, as_numpy(args))
    assert message is None
    for (name, got), expected in zip(
        model.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        assert torch.equal(got, expected), name
    run(model, {**args}, (32, 32), 2)
    tally('arguments', 'right, of NumPy: built and ran', (cls.__name__, args))


@BACKBONES
@MANY
@given(data=st.data())
def test_any_wrong_value_is_refused_by_name(cls, data):
    args, name = data.draw(spoiled(backbones(cifar=cls is DLAResNet_CIFAR), WRONG_IN_BACKBONE))
    if name == 'pretrained':
        args.pop('init_cfg', None)
    _, message = build(cls, args)
    assert message is not None, f'{name}={args[name]!r} was accepted'
    assert_names(message, {name})
    tally('arguments', 'one wrong: refused', (cls.__name__, args))


@MANY
@given(spoiled_attentions())
def test_any_wrong_value_of_an_attention_is_refused_by_name(case):
    args, name = case
    _, message = build(DLAResNet_CIFAR if 'block' in args else DLAResNet, args)
    assert message is not None, f'{name}={args["layer_attention"][name]!r} was accepted'
    assert_names(message, {name})
    tally('arguments', 'one wrong: refused', args)


@BACKBONES
@given(data=st.data())
def test_anything_runs_or_is_refused_by_name(cls, data):
    args = data.draw(mixtures(cls is DLAResNet_CIFAR))
    model, message = build(cls, args)
    if message is None:
        run(model, args, data.draw(st.sampled_from(SIZES)), 2)
        tally('arguments', 'mixed: built and ran', (cls.__name__, args))
    else:
        assert_names(message, names_in(args) | PARAMETERS)
        tally('arguments', 'mixed: refused', (cls.__name__, args))


@MANY
@given(units(), st.sampled_from([(), (1,), (2, 3)]))
def test_units_run(args, shape):
    unit, message = build(DSU, args)
    assert message is None
    y = torch.randn(*shape, args['channels'], requires_grad=True)
    h, c = unit(y, unit(y))
    (h.sum() + c.sum()).backward()
    assert h.isfinite().all() and c.isfinite().all() and y.grad.isfinite().all()
    tally('arguments', 'right: built and ran', (args, shape))


@MANY
@given(spoiled(units(), WRONG_IN_DSU))
def test_any_wrong_value_of_a_unit_is_refused_by_name(case):
    args, name = case
    _, message = build(DSU, copy.copy(args))
    assert message is not None, f'{name}={args[name]!r} was accepted'
    assert_names(message, {name})
    tally('arguments', 'one wrong: refused', args)
