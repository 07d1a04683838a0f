"""PyTorch's own tools work with every attention, and say what the modules themselves compute."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrizations, prune
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.feature_extraction import create_feature_extractor

from mmdla import DLAResNet

FUSED = {
    'DLALight': dict(reduction=4, head_channels=8),
    'DLABase': dict(reduction=4, head_channels=8),
    'MRLALight': dict(head_channels=8),
    'MRLABase': dict(head_channels=8),
}
KINDS = {
    **FUSED,
    'DIALSTM': dict(reduction=4),
    'SE': dict(reduction=4),
    'ECA': {},
    'KCLA': dict(head_channels=4, restart_block=1),
    'RLA': dict(hidden_channels=4),
    None: {},
}


EVERY = pytest.mark.parametrize('kind', KINDS)
MODES = pytest.mark.parametrize('training', [False, True], ids=['eval', 'train'])


def make(kind, ops='auto', dtype=torch.float64, num_stages=2):
    torch.manual_seed(0)
    attention = None if kind is None else dict(type=kind, **KINDS[kind])
    if kind in FUSED:
        attention['ops'] = ops
    model = DLAResNet(
        18,
        base_channels=8,
        num_stages=num_stages,
        strides=(1, 2, 2, 2)[:num_stages],
        dilations=(1,) * num_stages,
        out_indices=tuple(range(num_stages)),
        zero_init_residual=False,
        layer_attention=attention,
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.weight, 0.3)
            nn.init.uniform_(module.bias, -0.2, 0.2)
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.to(dtype)


def images(*shape, seed=1, dtype=torch.float64):
    return torch.rand(
        *(shape or (2, 3, 32, 32)), generator=torch.Generator().manual_seed(seed), dtype=dtype
    )


def agree(got, expected, tolerance=1e-9):
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def loss_of(outs):
    return sum(
        (out * torch.linspace(-1, 1, out.numel(), dtype=out.dtype).view_as(out)).sum()
        for out in outs
    )


def gradients(model, x):
    model.zero_grad()
    loss_of(model(x)).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def same_gradients(got, expected, tolerance=1e-8):
    assert got.keys() == expected.keys()
    floor = max(g.abs().max() for g in expected.values())
    for name, g in expected.items():
        assert (got[name] - g).abs().max() <= tolerance * (g.abs().max() + 1e-4 * floor), name


def reference(kind, training=False):
    return make(kind, 'reference').train(training)


# compilers


@EVERY
def test_compile_with_gradients(kind):
    torch._dynamo.reset()
    model, plain = (make(kind, ops, num_stages=1).train() for ops in ('auto', 'reference'))
    compiled, x = torch.compile(model, fullgraph=True, backend='aot_eager'), images()
    outs, expected = compiled(x), plain(x)
    agree(outs, expected)
    for each in (outs, expected):
        loss_of(each).backward()
    same_gradients(_named(model), _named(plain))


def _named(model):
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


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
        same_gradients(_named(model), gradients(reference(kind), x))


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


# transforms


@EVERY
def test_vmap_over_images_and_weights(kind):
    models = [make(kind).eval() for _ in range(2)]
    with torch.no_grad():
        for p in models[1].parameters():
            p.mul_(0.9)
    stacked, buffers = stack_module_state(models)
    base, x = make(kind).eval(), images()

    def call(weights, buffers, x):
        return functional_call(base, (weights, buffers), (x,))

    got = vmap(call, in_dims=(0, 0, None))(stacked, buffers, x)
    for i, model in enumerate(models):
        agree([out[i] for out in got], model(x))
    each = vmap(lambda image: base(image[None])[-1][0])(x)
    agree([each], base(x)[-1:])


@EVERY
@MODES
def test_grad_jvp_jacrev(kind, training):
    model, x = make(kind).train(training), images()
    weights, buffers = dict(model.named_parameters()), dict(model.named_buffers())

    def loss(weights, x):
        return loss_of(
            functional_call(model, (weights, {k: b.clone() for k, b in buffers.items()}), (x,))
        )

    fresh = reference(kind, training)
    same_gradients(grad(loss)(weights, x), gradients(fresh, x))
    z = x.clone().requires_grad_()
    (by_autograd,) = torch.autograd.grad(loss_of(fresh(z)), z)
    direction = images(seed=5)
    (tangent,) = jvp(lambda x: (loss(weights, x),), (x,), (direction,))[1]
    torch.testing.assert_close(tangent, (by_autograd * direction).sum(), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(
        jacrev(lambda x: loss(weights, x))(x), by_autograd, rtol=1e-8, atol=1e-8
    )
    with forward_ad.dual_level():
        out = loss_of(model(forward_ad.make_dual(x, direction)))
        got = forward_ad.unpack_dual(out).tangent
    torch.testing.assert_close(got, tangent, rtol=1e-8, atol=1e-8)


@EVERY
@MODES
def test_batched_gradients_and_saved_tensors(kind, training):
    x = images()

    def jacobian(model, batched):
        z = x.clone().requires_grad_()
        out = model(z)[-1].mean((2, 3)).flatten()[:3]
        rows = torch.eye(3, dtype=x.dtype)
        if batched:
            return torch.autograd.grad(out, z, rows, is_grads_batched=True)[0]
        return torch.stack([torch.autograd.grad(out, z, r, retain_graph=True)[0] for r in rows])

    model, plain = make(kind).train(training), reference(kind, training)
    expected = jacobian(plain, False)
    torch.testing.assert_close(jacobian(model, True), expected, rtol=1e-8, atol=1e-10)
    model, plain = make(kind).train(training), reference(kind, training)
    with torch.autograd.graph.save_on_cpu():
        got = gradients(model, x)
    same_gradients(got, gradients(plain, x))


# counters, viewers, copies


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


# changed modules


def _layers(model):
    kinds = nn.Conv2d | nn.Conv1d | nn.Linear
    return [m for m in model.modules() if isinstance(m, kinds)]


CHANGES = {
    'weight_norm': torch.nn.utils.weight_norm,
    'spectral_norm': torch.nn.utils.spectral_norm,
    'parametrized weight_norm': parametrizations.weight_norm,
    'parametrized spectral_norm': parametrizations.spectral_norm,
    'prune': lambda m: prune.l1_unstructured(m, 'weight', 0.3),
}


@EVERY
@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.filterwarnings('ignore:.*weight_norm.*')
def test_changed_weights_learn(kind, change):
    def train(ops):
        model = make(kind, ops).train()
        torch.manual_seed(1)
        for layer in _layers(model):
            CHANGES[change](layer)
        optimizer = torch.optim.SGD(model.parameters(), 1e-3)
        for step in range(2):
            optimizer.zero_grad()
            loss_of(model(images(seed=step))).backward()
            got = _named(model)
            optimizer.step()
        return model, got

    (model, got), (_, expected) = train('auto'), train('reference')
    unused = {n for n, p in model.named_parameters() if p.grad is None}
    assert not unused
    same_gradients(got, expected)


@EVERY
def test_dynamic_quantization(kind):
    model = make(kind, dtype=torch.float32).eval()
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, torch.qint8)
    x = images(dtype=torch.float32)
    with torch.no_grad():
        for got, expected in zip(quantized(x), model(x), strict=True):
            assert (got - expected).norm() <= 0.05 * expected.norm()


@EVERY
@MODES
def test_empty_batch(kind, training):
    model = make(kind).train(training)
    before = copy.deepcopy(model.state_dict())
    outs = model(images(0, 3, 32, 32))
    assert [o.shape[0] for o in outs] == [0, 0]
    loss_of(outs).backward()
    for name, value in model.state_dict().items():
        if 'num_batches' not in name:
            assert torch.equal(value, before[name]), name


@EVERY
@MODES
@pytest.mark.parametrize(
    'change', ['no statistics', 'fixed statistics', 'no counter', 'cumulative']
)
def test_norms_unlike_the_default(kind, training, change):
    def changed(ops):
        model = make(kind, ops).train(training)
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                if change == 'no statistics':
                    norm.track_running_stats = False
                    norm.running_mean = norm.running_var = norm.num_batches_tracked = None
                elif change == 'fixed statistics':
                    norm.track_running_stats = False
                elif change == 'no counter':
                    norm.num_batches_tracked = None
                else:
                    norm.momentum = None
        return model

    model, plain, x = changed('auto'), changed('reference'), images()
    for _ in range(2):
        agree(model(x), plain(x))
    same_gradients(gradients(model, x), gradients(plain, x))
    for (name, got), expected in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12, msg=name)


@EVERY
def test_onnx_11(kind):
    import onnxruntime

    model, x = make(kind, dtype=torch.float32).eval(), images(dtype=torch.float32)
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, opset_version=11, dynamo=False, input_names=['x'])
    session = onnxruntime.InferenceSession(file.getvalue(), providers=['CPUExecutionProvider'])
    with torch.no_grad():
        expected = model(x)
    another = session.run(None, {'x': x.numpy()})
    agree([torch.from_numpy(a) for a in another], expected, 1e-4)
