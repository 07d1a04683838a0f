"""What is exported computes what PyTorch computes, on real images, for any batch and size."""

import json
import re
import shutil
import textwrap

import mmcv
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from fixtures import DINER, REPO
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.runner import load_checkpoint

import mmdla
from mmdla.apis.export import Part, export_program
from mmdla.errors import InputError
from mmdla.models.layer_attention import known_types

KINDS = [*known_types(), None]
CASES = [(1, 97, 131), (3, 97, 131), (1, 64, 64), (3, 64, 64)]  # images, height, width


def photographs(batch: int, height: int, width: int, mean=114.0, std=58.0) -> torch.Tensor:
    """Windows of a photograph, normalised: (B, 3, H, W)."""
    photo = mmcv.imread(str(DINER / 'photo.jpg'))
    windows = [photo[60 + 40 * i :, 30 * i :][:height, :width] for i in range(batch)]
    images = np.stack([(window - np.float32(mean)) / np.float32(std) for window in windows])
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()


def learn_statistics(model: torch.nn.Module) -> None:
    """Let batch norm take the statistics of photographs, without which activations explode."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    model.backbone.train()
    with torch.no_grad():
        model.backbone(photographs(4, 96, 128))


@pytest.fixture
def save(tmp_path):
    """``save(backbone)``: config and checkpoint of a small classifier."""

    def make(backbone: dict):
        config = tmp_path / 'classifier.py'
        model = dict(
            type='ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=64),
        )
        config.write_text(f"""
default_scope = 'mmpretrain'
model = {model!r}
data_preprocessor = dict(mean=[114.0, 113.0, 112.0], std=[58.0, 57.0, 56.0], to_rgb=True)
""")
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            network = MODELS.build(model)
        learn_statistics(network)
        meta = dict(dataset_meta=dict(classes=list('abcdefghij')))
        torch.save(dict(state_dict=network.state_dict(), meta=meta), config.with_suffix('.pth'))
        return config, config.with_suffix('.pth'), network.eval()

    return make


def backbone_cfg(kind: str | None, **kwargs) -> dict:
    """One stage of three blocks: as much state as any attention keeps."""
    attention = kind and dict(type=kind)
    cfg = dict(type='mmdla.DLAResNet', depth=34, num_stages=1)
    cfg.update(strides=(1,), dilations=(1,), stage_with_dcn=(False,), out_indices=(0,))
    return {**cfg, 'layer_attention': attention, **kwargs}


def outputs(path, images: torch.Tensor) -> dict[str, torch.Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    values = session.run(None, {'images': images.numpy()})
    return dict(zip(names, map(torch.from_numpy, values), strict=True))


def assert_equal(got: torch.Tensor, expected: torch.Tensor) -> None:
    scale = max(1.0, expected.abs().max().item())
    assert expected.std() > 1e-3
    torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-4)


# MRLA is DLA without its unit, and the others are made of what a ResNet is made of
DYNAMO = ['DLALight', 'DLABase', 'KCLA', 'RLA']


@pytest.mark.parametrize(
    ('kind', 'exporter'),
    [*((kind, 'torchscript') for kind in KINDS), *((kind, 'dynamo') for kind in DYNAMO)],
)
def test_backbone(cli, save, tmp_path, monkeypatch, kind, exporter):
    config, checkpoint, network = save(backbone_cfg(kind))
    out = tmp_path / 'backbone.onnx'
    monkeypatch.setenv('MMDLA_OPS', 'fast')  # must not reach the graph
    argv = [config, checkpoint, out, '--part', 'backbone', '--exporter', exporter]
    assert cli('export_onnx', *argv)[0] == 0
    monkeypatch.delenv('MMDLA_OPS')
    assert {node.domain for node in onnx.load(out).graph.node} == {''}
    for case in CASES:
        images = photographs(*case)
        with torch.no_grad():
            (expected,) = network.backbone(images)
        assert_equal(outputs(out, images)['backbone_0'], expected)


@pytest.mark.parametrize('kind', KINDS)
def test_torch_export(save, kind):
    network = save(backbone_cfg(kind))[2]
    exported = Part(network, 'backbone' if kind in ('SE', 'RLA') else 'model')
    module = export_program(exported).module(check_guards=False)
    for case in CASES:
        images = photographs(*case)
        with torch.no_grad():
            ((got,), (expected,)) = module(images), exported(images)
        assert_equal(got, expected)


@pytest.mark.parametrize(('opset', 'fold'), [(18, True), (20, False)])
def test_classifier(cli, save, tmp_path, opset, fold):
    """The tool's own check passes, and so does ours; the file says how to feed it."""
    cfg = backbone_cfg('SE')
    if fold:
        cfg = backbone_cfg('DLALight', drop_path_rate=0.1)
    config, checkpoint, network = save(cfg)
    out = tmp_path / 'classifier.onnx'
    argv = [config, checkpoint, out, '--check', '--opset', opset, *['--fold'] * fold]
    assert cli('export_onnx', *argv)[0] == 0
    images = photographs(2, 120, 90)
    with torch.no_grad():
        expected = network(images)
    assert_equal(outputs(out, images)['logits'], expected)
    graph = onnx.load(out)
    assert graph.opset_import[0].version == opset
    properties = {p.key: json.loads(p.value) for p in graph.metadata_props}
    assert properties['mean'] == [114.0, 113.0, 112.0]
    assert properties['flips_channels'] is True
    assert properties['classes'] == list('abcdefghij')
    assert properties['mmdla'] == mmdla.__version__


def test_torch_export_file(cli, save, tmp_path, capsys):
    config, checkpoint, network = save(backbone_cfg('DLABase'))
    out = tmp_path / 'classifier.pt2'
    assert cli('export_onnx', config, checkpoint, out, '--check', '--fold')[0] == 0
    images = photographs(1, 80, 70)
    with torch.no_grad():
        (got,) = torch.export.load(out).module(check_guards=False)(images)
        assert_equal(got, network(images))


def test_dense_detector(cli, small_config, checkpoint, tiny_coco, tmp_path, monkeypatch):
    out = tmp_path / 'retinanet.onnx'
    images = sorted(tiny_coco.glob('*2017/*.jpg'))
    argv = [small_config, checkpoint, out, '--check', '--images', *images]
    assert cli('export_onnx', *argv)[0] == 0
    model = build(small_config, checkpoint)
    images = photographs(2, 160, 224)
    with torch.no_grad():
        scores, boxes = model(images, mode='tensor')
    got = outputs(out, images)
    assert list(got) == [f'{kind}_{i}' for kind in ('cls_score', 'bbox_pred') for i in range(5)]
    values = list(got.values())
    for value, expected in zip(values, [*scores, *boxes], strict=True):
        assert_equal(value, expected)
    metas = [dict(img_shape=images.shape[2:], scale_factor=(1, 1))] * 2
    for ours, expected in zip(
        model.bbox_head.predict_by_feat(values[:5], values[5:], batch_img_metas=metas),
        model.bbox_head.predict_by_feat(scores, boxes, batch_img_metas=metas),
        strict=True,
    ):
        assert len(expected) > 10
        torch.testing.assert_close(ours.scores, expected.scores, rtol=0, atol=1e-4)
    monkeypatch.chdir(tmp_path)
    check_the_way_to_boxes_of_the_docs(model, small_config, checkpoint)


def check_the_way_to_boxes_of_the_docs(model, config, checkpoint):
    """``retinanet.onnx`` is here."""
    text = (REPO / 'docs/deployment.md').read_text()
    (code,) = re.findall(r'^  ```python\n(.*?)^  ```$', text, re.M | re.S)
    for name, source in dict(py=config, pth=checkpoint).items():
        shutil.copy(source, f'retinanet.{name}')
    shutil.copy(DINER / 'photo.jpg', 'photo.jpg')
    values: dict = {}
    exec(textwrap.dedent(code).replace('(800, 1088)', '(160, 224)'), values)
    with torch.no_grad():
        scores, boxes = model(values['images'], mode='tensor')
    (expected,) = model.bbox_head.predict_by_feat(scores, boxes, batch_img_metas=values['metas'])
    (found,) = values['results']
    assert len(found) == len(expected) > 10
    assert found.bboxes.shape == (len(found), 4)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-4)


def build(config, checkpoint) -> torch.nn.Module:
    cfg = Config.fromfile(config)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    load_checkpoint(model, str(checkpoint))
    return model.eval()


def test_detector_with_proposals_ends_at_the_neck(cli, two_stage, tmp_path):
    config, checkpoint = two_stage
    out = tmp_path / 'features.onnx'
    assert cli('export_onnx', config, checkpoint, out, '--exporter', 'torchscript')[0] == 0
    model = build(config, checkpoint)
    images = photographs(1, 160, 192)
    with torch.no_grad():
        expected = model.extract_feat(images)
    got = outputs(out, images)
    assert list(got) == [f'neck_{i}' for i in range(5)]
    for value, want in zip(got.values(), expected, strict=True):
        assert_equal(value, want)
    code, message = cli('export_onnx', config, checkpoint, out, '--part', 'model')
    assert code == 2
    assert 'what follows the neck' in message


def test_check_finds_a_difference(cli, tool, save, tmp_path, monkeypatch):
    """A result that is off by a thousandth is refused, and nothing is left."""
    config, checkpoint, _ = save(backbone_cfg('SE'))
    space = tool('export_onnx').__globals__
    runner = space['onnx_runner']
    monkeypatch.setitem(
        space, 'onnx_runner', lambda path: lambda images: [v + 1e-3 for v in runner(path)(images)]
    )
    out = tmp_path / 'out'
    out.mkdir()
    argv = [
        config,
        checkpoint,
        out / 'a.onnx',
        '--check',
        '--part',
        'backbone',
        '--exporter',
        'torchscript',
    ]
    code, message = cli('export_onnx', *argv)
    assert code == 2
    assert 'differs from PyTorch by more than 0.0001' in message
    assert list(out.iterdir()) == []


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        (['{config}', '{checkpoint}', '{out}/a.pb'], 'must end with .onnx or .pt2'),
        (['{config}', '{checkpoint}', '{out}/none/a.onnx'], 'no such folder'),
        (['{config}', '{out}/none.pth', '{out}/a.onnx'], 'none.pth'),
        (['{config}', '{checkpoint}', '{out}/a.onnx', '--exporter', 'torchscript', '--opset', '20'], '--opset 20 needs --exporter dynamo'),
        (['{config}', '{checkpoint}', '{out}/a.onnx', '--exporter', 'torchscript'], 'use --exporter dynamo, or --part backbone'),
        (['{out}/none.py', '{checkpoint}', '{out}/a.onnx'], 'none.py'),
        (['{config}', '{config}', '{out}/a.onnx'], 'not a PyTorch checkpoint'),
        (
            ['{config}', '{checkpoint}', '{out}/a.onnx', '--check', '--images', '{config}'],
            'cannot be read as an image',
        ),
        (
            ['{config}', '{checkpoint}', '{out}/a.onnx', '--cfg-options', 'model.backbone.depth=50'],
            'cannot be used with this config',
        ),
        (
            ['{config}', '{checkpoint}', '{out}/a.onnx', '--part', 'neck', '--cfg-options',
             'model.neck=None'],
            'there is backbone, model',
        ),
    ],
)  # fmt: skip
def test_bad_input(cli, save, tmp_path, argv, words):
    config, checkpoint, _ = save(backbone_cfg('ECA'))
    out = tmp_path / 'out'
    out.mkdir()
    values = dict(config=config, checkpoint=checkpoint, out=out)
    code, message = cli('export_onnx', *(arg.format(**values) for arg in argv))
    assert code == 2
    assert words in message
    assert list(out.iterdir()) == []


def test_without_the_packages(cli, save, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'onnxruntime', None)
    config, checkpoint, _ = save(backbone_cfg('ECA'))
    code, message = cli('export_onnx', config, checkpoint, tmp_path / 'a.onnx', '--check')
    assert code == 2
    assert 'onnxruntime must be installed: pip install "mmdla[onnx]"' in message


@pytest.mark.parametrize('path', ['a.onnx', 'a.pt2'])
def test_pytorch_that_is_too_old(cli, save, tmp_path, monkeypatch, path):
    monkeypatch.setattr('mmdla.apis.export.FIRST_TORCH', '99')
    config, checkpoint, _ = save(backbone_cfg('ECA'))
    code, message = cli('export_onnx', config, checkpoint, tmp_path / path)
    assert code == 2
    assert 'needs PyTorch >= 99, this is' in message and '--exporter torchscript' in message
    assert not (tmp_path / path).exists()


def test_part_that_is_not_there(save):
    network = save(backbone_cfg(None))[2]
    with pytest.raises(InputError, match='ImageClassifier has none; there is backbone'):
        network.neck = None
        Part(network, 'neck')
