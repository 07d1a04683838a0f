"""The model index and the README's table say what the configs are."""

import functools
import itertools
from types import SimpleNamespace

import pytest
import torch
import yaml
from mmengine.config import Config
from mmpretrain import get_model

from mmdla import DLAResNet, zoo
from mmdla.analysis.complexity import Complexity, measure

# Some configs of different tasks and attentions are measured again, ``dev/model_zoo.py --check``
# measures all.
MEASURED = (
    'mask_rcnn_dla_b_r50',
    'retinanet_mrla_r50',
    'pspnet_dla_r50',
    'imagenet_kcla_r50',
    'imagenet_mrla_b_deit_tiny',
    'cifar10_se',
)  # fmt: skip


@pytest.fixture
def main(tool):
    return tool('model_zoo')


def test_every_config_is_listed(main, repo):
    zoo_of = main.__globals__
    models = yaml.safe_load((repo / 'configs/metafile.yml').read_text())['Models']
    names = [path.stem for path in zoo_of['configs']()]
    assert [model['Name'] for model in models] == names and set(MEASURED) <= set(names)
    readme = (repo / 'README.md').read_text()
    assert all(zoo_of['link'](path) in readme for path in zoo_of['configs']())


@pytest.mark.parametrize('name', MEASURED)
def test_is_up_to_date(name, main, repo):
    zoo_of, path = main.__globals__, repo / f'configs/{name}.py'
    models = yaml.safe_load((repo / 'configs/metafile.yml').read_text())['Models']
    assert zoo_of['entry'](path) in models
    if not name.startswith('cifar'):  # whose row has three depths
        row = zoo_of['row'](zoo_of['link'](path), [zoo_of['size_of'](path)], 2)
        assert f'{row}\n' in (repo / 'README.md').read_text()


def test_out_of_date(main, repo, tmp_path, monkeypatch):
    sizes = itertools.count(10**6, 10**5)
    count = functools.cache(lambda path, depth=None: Complexity(next(sizes), 2 * 10**9, (32, 32)))
    readme, metafile = tmp_path / 'README.md', tmp_path / 'metafile.yml'
    for name, value in dict(size_of=count, README=readme, METAFILE=metafile).items():
        monkeypatch.setitem(main.__globals__, name, value)
    readme.write_text((repo / 'README.md').read_text())
    with pytest.raises(SystemExit, match=r'metafile\.yml, README\.md out of date'):
        main(['--check'])
    main([])
    main(['--check'])
    text = readme.read_text()
    readme.write_text(text.replace('| 2.00 | no |', '| 2.01 | no |', 1))
    assert readme.read_text() != text
    with pytest.raises(SystemExit, match=r'error: README\.md out of date'):
        main(['--check'])
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
