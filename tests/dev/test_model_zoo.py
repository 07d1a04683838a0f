"""The model index and the README's table say what the configs are."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmpretrain import get_model

from mmdla import DLAResNet, zoo
from mmdla.analysis.complexity import measure


def test_is_up_to_date(tool, repo):
    tool('model_zoo')(['--check'])
    models = (repo / 'configs/metafile.yml').read_text()
    for path in repo.glob('configs/*.py'):
        assert path.stem.startswith(('demo', 'nuclei', 'bccd')) or f'Name: {path.stem}\n' in models


def test_out_of_date(tool, repo, tmp_path, monkeypatch):
    main = tool('model_zoo')
    readme = tmp_path / 'README.md'
    text = (repo / 'README.md').read_text()
    readme.write_text(text.replace('| 25.56 | 4.09 |', '| 25.57 | 4.09 |'))
    monkeypatch.setitem(main.__globals__, 'README', readme)
    with pytest.raises(SystemExit, match=r'README\.md out of date'):
        main(['--check'])
    assert readme.read_text() != text
    main([])
    assert readme.read_text() == text
    readme.write_text('no table')
    with pytest.raises(ValueError, match='lacks the marks'):
        main([])


def test_counts_a_detector_with_its_heads(repo):
    """The parts that differ between two detectors of the same backbone are known by hand."""
    faster, mask = (
        measure(Config.fromfile(repo / f'configs/{name}_dla_r50.py'))
        for name in ('faster_rcnn', 'mask_rcnn')
    )
    convs = 4 * 256 * 256 * 9 + 256 * 256 * 4 * 1 + 256 * 80 * 4  # at 14x14, the last on 28x28
    assert mask.macs - faster.macs == 100 * 14 * 14 * convs
    biases = 4 * 256 + 256 + 80
    assert mask.parameters - faster.parameters == 4 * 256**2 * 9 + 256**2 * 4 + 256 * 80 + biases
    assert faster.size == (800, 1280)


def test_classifiers_by_name():
    zoo.register_models()
    zoo.register_models()
    model = get_model('imagenet_dla_l_r50')
    assert isinstance(model.backbone, DLAResNet)
    assert model.backbone.layer1.attention.dsu is not None
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 1000)


def test_classifiers_and_detectors_by_name(repo, monkeypatch):
    """Each in its host alone; twice is as once."""
    from mmdet.apis import DetInferencer
    from mmpretrain import list_models

    monkeypatch.setattr(zoo, 'MIM', repo)
    for _ in range(2):
        zoo.register_models()
    assert 'imagenet_dla_l_r50' in list_models() and not list_models('*faster_rcnn_dla*')
    names = DetInferencer.list_models('mmdet')
    assert names.count('faster_rcnn_dla_r50') == 1 and 'imagenet_dla_l_r50' not in names
    assert 'retinanet_r50_fpn_1x_coco' in [name.replace('-', '_') for name in names]
    assert 'faster_rcnn_dla_r50' not in DetInferencer.list_models('mmpretrain')
    cfg, weights = DetInferencer._load_model_from_metafile(SimpleNamespace(scope='mmdet'),
                                                           'faster_rcnn_dla_r50')  # fmt: skip
    assert cfg.model.backbone.depth == 50 and weights is None


def test_one_host_is_enough(repo, monkeypatch):
    monkeypatch.setattr(zoo, 'MIM', repo)

    def missing(_):
        raise ImportError('mmpretrain')

    monkeypatch.setattr(zoo, '_to_mmpretrain', missing)
    zoo.register_models()
    monkeypatch.setattr(zoo, '_to_mmdet', missing)
    with pytest.raises(ImportError):
        zoo.register_models()


def test_not_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, 'MIM', tmp_path)
    with pytest.raises(FileNotFoundError, match='pip install -e'):
        zoo.register_models()
