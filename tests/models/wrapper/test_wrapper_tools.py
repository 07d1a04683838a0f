"""What people do with a backbone: copy, trace, compile, export, distribute it."""

import copy
import pickle

import pytest
import torch
from host_backbones import HOSTS, build, build_host, image, outputs, run
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS
from mmengine.utils import digit_version
from torch import distributed, multiprocessing

from mmdla import LayerAttention, WithLayerAttention

VIT, PVT = 'mmpretrain.VisionTransformer', 'mmdet.PyramidVisionTransformerV2'
SWIN, CONVNEXT = 'mmdet.SwinTransformer', 'mmpretrain.ConvNeXt'
COMPILED = [
    (VIT, 'MRLALightTokens'),
    (VIT, 'MRLABaseTokens'),
    (PVT, 'DLALight'),
    (CONVNEXT, 'DLALight'),
]


def assert_close(actual, expected):
    for a, b in zip(outputs(actual), outputs(expected), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('name', [VIT, PVT, 'mmdet.RegNet'])
def test_copies_and_pickles(name):
    model = build(name, 'DLALight', zero_init_attention=False).eval()
    expected = run(model)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model)
        assert_close(run(twin), expected)
        with torch.no_grad():
            for parameter in twin.layer_attentions.parameters():
                parameter.fill_(0.3)
        assert any(not torch.equal(a, b) for a, b in zip(run(twin), expected, strict=True))
    assert_close(run(model), expected)


@pytest.mark.parametrize(('name', 'kind'), COMPILED)
def test_trace(name, kind):
    model = build(name, kind, zero_init_attention=False).eval()
    x, other = image(), image(1)
    with torch.no_grad():
        traced = torch.jit.trace(model, x, check_trace=False)
        assert_close(traced(other), model(other))


@pytest.mark.parametrize(('name', 'kind'), COMPILED)
@pytest.mark.parametrize('whole', [True, False], ids=['whole', 'in parts'])
def test_compile(name, kind, whole):
    model = build(name, kind, zero_init_attention=False).eval()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend='eager', fullgraph=whole)
    assert_close(compiled(image(1)), model(image(1)))


@MODELS.register_module()
class Pooled(LayerAttention):
    """Plain enough for every tracer."""

    def attend(self, index, x, shortcut, state):
        y = x.mean((2, 3), keepdim=True) if state is None else state
        return x + y * shortcut, y + 1

    def start_as_identity(self):
        pass


def test_fx():
    """Of the hosts that torch.fx can trace."""
    model = WithLayerAttention(
        dict(type='mmdet.RegNet', **HOSTS['mmdet.RegNet']), dict(type='Pooled')
    ).eval()
    assert_close(torch.fx.symbolic_trace(model)(image(1)), model(image(1)))


def test_containers_are_still_those_of_the_blocks():
    host, model = build_host(SWIN), build(SWIN)
    for theirs, ours in zip(host.stages, model.stages, strict=True):
        assert [type(block) for block in ours.blocks] == [type(block) for block in theirs.blocks]
    convnext = build(CONVNEXT)
    assert len(convnext.stages[0][:1]) == 1


@pytest.mark.parametrize(
    ('name', 'kind', 'head'),
    [
        (CONVNEXT, 'DLALight', dict(type='mmpretrain.LinearClsHead', in_channels=64)),
        (VIT, 'MRLALightTokens', dict(type='mmpretrain.VisionTransformerClsHead', in_channels=32)),
        (VIT, 'MRLABaseTokens', dict(type='mmpretrain.VisionTransformerClsHead', in_channels=32)),
    ],
)
def test_onnx_of_a_classifier(name, kind, head, tmp_path):
    import onnxruntime

    options = dict(out_indices=[3]) if name == CONVNEXT else dict(out_type='cls_token')
    model = MODELS.build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(
                type='WithLayerAttention',
                backbone=dict(type=name, **{**HOSTS[name], **options}),
                layer_attention=dict(type=kind, head_channels=16),
                zero_init_attention=False,
            ),
            head=dict(num_classes=5, **head),
        )
    ).eval()
    torch.nn.init.normal_(next(iter(model.head.parameters())))
    path = str(tmp_path / 'model.onnx')
    torch.onnx.export(
        model,
        image(),
        path,
        opset_version=18,
        input_names=['images'],
        **(dict(dynamo=False) if digit_version(torch.__version__) >= digit_version('2.5') else {}),
    )
    session = onnxruntime.InferenceSession(path)
    (scores,) = session.run(None, {'images': image(1).numpy()})
    assert_close(torch.from_numpy(scores), model(image(1)))


def test_two_processes(tmp_path):
    """Their gradients are those of the whole batch, and every parameter takes part."""
    multiprocessing.spawn(train_one_rank, (str(tmp_path / 'store'), str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)
    started = distributed_model().state_dict()
    for name, value in started.items():
        if name.endswith(('norm.weight', 'norm_x.weight')) and 'layer_attentions' in name:
            assert not torch.equal(value, first[name]), name


def distributed_model():
    model = build(PVT, 'DLALight', with_cp=True)
    return torch.nn.ModuleDict(dict(maps=model, tokens=build(VIT, 'MRLABaseTokens')))


def train_one_rank(rank: int, store: str, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=2)
    models = distributed_model()
    for model in models.values():
        ddp = MMDistributedDataParallel(model, find_unused_parameters=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(2):
            optimizer.zero_grad()
            outs = outputs(ddp(image(10 * rank + step)))
            sum(out.square().mean() for out in outs).backward()
            optimizer.step()
    torch.save(dict(models.named_parameters()), f'{folder}/{rank}.pth')
    distributed.destroy_process_group()
