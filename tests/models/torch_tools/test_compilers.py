"""Compilers, exporters and tracers take every attention, and compute what the modules compute."""

import copy

import pytest
import torch
from attention_lists import FUSED
from tool_models import (
    EVERY,
    MODES,
    agree,
    gradients,
    images,
    loss_of,
    make,
    named_gradients,
    reference,
    same_gradients,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torchvision.models.feature_extraction import create_feature_extractor


@EVERY
def test_compile_with_gradients(kind):
    torch._dynamo.reset()
    model, plain = (make(kind, ops, num_stages=1).train() for ops in ('auto', 'reference'))
    compiled, x = torch.compile(model, fullgraph=True, backend='aot_eager'), images()
    outs, expected = compiled(x), plain(x)
    agree(outs, expected)
    for each in (outs, expected):
        loss_of(each).backward()
    same_gradients(named_gradients(model), named_gradients(plain))


@pytest.mark.parametrize('kind', FUSED)
@pytest.mark.parametrize('grad_mode', [False, True], ids=['no_grad', 'grad'])
def test_fused_operations_are_in_the_graph(kind, grad_mode):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    with torch.set_grad_enabled(grad_mode):
        torch.compile(make(kind, num_stages=1).train(grad_mode), fullgraph=True, backend=backend)(
            images()
        )
    (graph,) = graphs
    assert sum('mmdla' in str(node.target) for node in graph.graph.nodes) >= 2  # of two blocks


def test_inductor():
    torch._dynamo.reset()
    model, x = make('DLALight', num_stages=1).eval(), images()
    with torch.no_grad():
        agree(torch.compile(model, fullgraph=True)(x), model(x))


@EVERY
@MODES
def test_export(kind, training):
    model, x = make(kind).train(training), images()
    program = torch.export.export(copy.deepcopy(model), (x,))
    assert not [n for n in program.graph.nodes if 'mmdla' in str(n.target)], 'others read it too'
    another = images(seed=2)
    agree(program.module()(another), reference(kind, training)(another))


@EVERY
@MODES
def test_make_fx(kind, training):
    model = make(kind).train(training)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    weights = dict(model.named_parameters())

    def call(x):
        return functional_call(model, (weights, {k: b.clone() for k, b in buffers.items()}), (x,))

    graph = make_fx(call)(images())
    another = images(seed=2)
    agree(graph(another), reference(kind, training)(another))


@EVERY
@MODES
def test_fake_tensors(kind, training):
    model, x = make(kind).train(training), images()
    expected = reference(kind, training)(x)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x = mode.from_tensor(x).requires_grad_()
        outs = model(x)
        sum(out.square().sum() for out in outs).backward()
    assert [o.shape for o in outs] == [o.shape for o in expected]
    assert x.grad.shape == x.shape


@EVERY
@pytest.mark.parametrize('grad_mode', [False, True], ids=['no_grad', 'grad'])
def test_jit_trace(kind, grad_mode):
    model = make(kind).eval()
    with torch.set_grad_enabled(grad_mode):
        traced = torch.jit.trace(model, images())
        another = images(3, 3, 40, 56, seed=2)
        agree(traced(another), reference(kind)(another))
    if grad_mode:
        x = images(seed=3)
        gradients(traced, x)
        same_gradients(named_gradients(model), gradients(reference(kind), x))


@EVERY
def test_symbolic_trace(kind):
    model = make(kind).eval()
    traced = torch.fx.symbolic_trace(model)
    another = images(1, 3, 40, 40, seed=2)
    agree(traced(another), reference(kind)(another))
    same_gradients(gradients(traced, another), gradients(reference(kind), another))


@EVERY
def test_feature_extractor(kind):
    model, x = make(kind).eval(), images()
    seen = []
    model.layer1[1].relu.register_forward_hook(lambda m, a, out: seen.append(out.clone()))
    expected = model(x)
    nodes = {'layer1.1.relu_1': 'block', 'layer1.0.bn2': 'norm'}
    extracted = create_feature_extractor(make(kind).eval(), nodes)(x)
    agree([extracted['block']], seen[-1:])
    assert extracted['norm'].shape == expected[0].shape
    stages = ['layer1', 'layer2']
    agree(create_feature_extractor(make(kind).eval(), stages)(x).values(), expected)
