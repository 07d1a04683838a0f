"""Modules that somebody changed: norms of weights, pruning, quantization, other statistics."""

import copy
import io

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
    named_gradients,
    same_gradients,
)
from torch import nn
from torch.nn.utils import parametrizations, prune


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
            got = named_gradients(model)
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
