"""Counters, copies and what looks at a model from outside see what the modules' calls show."""

import copy
import pickle

import pytest
import torch
from tool_models import (
    EVERY,
    MODES,
    agree,
    gradients,
    images,
    loss_of,
    make,
    reference,
)
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@EVERY
def test_flops(kind):
    def count(ops):
        model, counter = make(kind, ops).eval(), FlopCounterMode(display=False)
        with counter:
            model(images())
        return counter.get_total_flops()

    assert count('auto') == count('reference') > 0


@EVERY
def test_hook_counters(kind):
    """As thop and ptflops count: a forward hook on every leaf."""

    def count(ops):
        model, seen = make(kind, ops).eval(), {}
        for name, module in model.named_modules():
            if not list(module.children()):
                module.register_forward_hook(
                    lambda m, args, out, name=name: seen.update(
                        {name: seen.get(name, 0) + out.numel()}
                    )
                )
        with torch.no_grad():
            model(images())
        return seen, {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Conv1d)}

    (seen, convs), (expected, _) = count('auto'), count('reference')
    assert seen == expected
    missed = convs - seen.keys()
    assert all('extract' in name for name in missed), missed


@EVERY
def test_copies(kind):
    model, x = make(kind).train(), images()
    gradients(model, x)  # with something in every cache
    model.eval()
    expected = reference(kind).eval()
    expected.load_state_dict(model.state_dict())
    agree(copy.deepcopy(model)(x), expected(x))
    agree(pickle.loads(pickle.dumps(model))(x), expected(x))


@EVERY
def test_summary_writer(kind, tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_graph(make(kind).eval(), images())
    assert sum(f.stat().st_size for f in tmp_path.iterdir()) > 1000


@EVERY
@MODES
@pytest.mark.parametrize(
    'target', ['layer2', 'layer2.1', 'layer2.1.relu', 'layer2.1.conv2', 'layer2.attention']
)
def test_grad_cam(kind, training, target):
    """The activation and its gradient, by a forward hook and a hook on its output."""
    if kind is None and target.endswith('attention'):
        target = 'layer1'

    def cam(model):
        kept = {}

        def look(module, args, out):
            out = out[0] if isinstance(out, tuple) else out
            kept['map'] = out.detach().clone()
            out.register_hook(lambda g: kept.update(gradient=g.clone()))

        model.get_submodule(target).register_forward_hook(look)
        loss_of(model.train(training)(images())).backward()
        return kept['map'], kept['gradient']

    agree(cam(make(kind)), cam(reference(kind)), 1e-8)
