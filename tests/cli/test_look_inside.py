"""``tools/look_inside.py``: what it writes, and what it says to bad input."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from self_contained import check_self_contained

from mmdla.analysis.inspection.model_under_test import ModelUnderTest

CIFAR = Path(__file__).parents[1] / 'data/cifar'
DINER = Path(__file__).parents[1] / 'data/diner/photo.jpg'


def random_classifier(repo, kind: str, path: Path) -> list:
    """A config of CIFAR-100 and a checkpoint with random weights."""
    from mmpretrain.utils import register_all_modules

    config = repo / f'configs/cifar100_{kind}.py'
    cfg = Config.fromfile(config)
    register_all_modules(init_default_scope=False)
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    model = MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))
    torch.save(dict(state_dict=model.state_dict()), path)
    return [config, path]


@pytest.fixture
def classifier(repo, tmp_path):
    return random_classifier(repo, 'dla_b', tmp_path / 'dla_b.pth')


def look(out: Path) -> dict:
    """Check that all is there; the numbers."""
    for path in out.glob('figures/*'):
        assert cv2.imread(str(path)) is not None
    assert not list(out.rglob('*.part'))
    return json.loads((out / 'recorded.json').read_text())


def test_classifier_on_a_folder(cli, classifier, tmp_path):
    folder, out = tmp_path / 'pictures', tmp_path / 'out'
    folder.mkdir()
    names = ['cifar100_00_49.png', 'cifar100_01_33.png']
    for name in names:
        (folder / name).write_bytes((CIFAR / name).read_bytes())
    (folder / 'notes.txt').write_text('no image')
    code, message = cli('look_inside', *classifier, folder, '--out', out)
    assert code == 0, message
    numbers = look(out)
    assert [Path(one['file']).name for one in numbers['by_picture']] == names
    weights = np.array(numbers['mean']['layer1']['weights'])
    apart = [one['stages']['layer1']['weights'] for one in numbers['by_picture']]
    np.testing.assert_allclose(weights, np.mean(apart, 0), atol=2e-6)
    assert weights[0].tolist() == [1, 0] and weights[1].sum() == pytest.approx(1, abs=1e-5)
    scores = [one['score'] for one in numbers['by_picture'][0]['found']]
    assert len(scores) == 5 and sorted(scores, reverse=True) == scores

    parts = check_self_contained((out / 'report.html').read_text())
    for word in ('layer3: activity', 'layer3: evidence', 'What to look for', *names, 'DLA-B'):
        assert word in parts.text
    drawn = {path.stem for path in out.glob('figures/*')}
    kinds = ('weights', 'kept', 'dsu_gates', 'dsu_context')
    wanted = {f'{kind}_layer{i}' for kind in kinds for i in (1, 2, 3)}
    views = ('picture', 'layer3_activity', 'layer3_evidence')
    assert drawn == wanted | {f'picture{i}_{view}' for i in (1, 2) for view in views}
    assert sum(tag == 'img' for tag, _ in parts.tags) == len(drawn) + 2, 'and how to read them'


def test_detector(cli, small_config, checkpoint, tmp_path):
    out = tmp_path / 'out'
    code, message = cli(
        'look_inside', small_config, checkpoint, DINER, '--out', out, '--score', '0',
        '--layer', 'backbone.layer2', 'neck.fpn_convs.0.conv',
    )  # fmt: skip
    assert code == 0, message
    numbers = look(out)
    assert numbers['layer attention'] == 'DLALight'
    assert {'gates', 'lambdas', 'refresh', 'context'} <= numbers['mean']['layer4'].keys()
    (one,) = numbers['by_picture']
    assert one['found'] and all(len(found['box']) == 4 for found in one['found'])
    parts = check_self_contained((out / 'report.html').read_text())
    for label, count in Counter(found['label'] for found in one['found']).items():
        assert f'{count} × {label}' in parts.text
    assert (out / 'figures/picture1_layer2_evidence.png').exists()
    assert (out / 'figures/picture1_neck_fpn_convs_0_conv_evidence.png').exists()


def test_detector_that_finds_nothing(cli, small_config, checkpoint, tmp_path):
    out = tmp_path / 'out'
    argv = small_config, checkpoint, DINER, '--out', out, '--score', '1'
    assert cli('look_inside', *argv)[0] == 0
    assert look(out)['by_picture'][0]['found'] == []
    assert 'Found: nothing' in (out / 'report.html').read_text()
    assert not list(out.glob('figures/*evidence*'))


def two_stage(repo, path: Path) -> ModelUnderTest:
    """The Faster R-CNN of the demo with random weights."""
    from mmdet.utils import register_all_modules

    cfg = Config.fromfile(repo / 'configs/demo_tree_dla_r50.py')
    register_all_modules(init_default_scope=False)
    init_default_scope('mmdet')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), path)
    return ModelUnderTest(cfg, str(path), score=0.0)


@pytest.mark.parametrize('stages', [1, 2])
def test_target_of_a_detector_is_what_is_kept(stages, repo, small_config, checkpoint, tmp_path):
    if stages == 1:
        subject = ModelUnderTest(Config.fromfile(small_config), str(checkpoint), score=0.0)
    else:
        subject = two_stage(repo, tmp_path / 'random.pth')
    data, image = subject.prepare(DINER)
    kept = subject.find(data)
    scores = np.array([found.score for found in kept])
    middle = np.argmax(scores[:-1] - scores[1:])  # the widest gap
    subject.score = scores[middle : middle + 2].mean()
    assert len(subject.find(data)) == middle + 1
    with torch.enable_grad():
        target = subject.target(data)
    assert target.requires_grad
    wanted = scores[: middle + 1].sum()
    if stages == 1:  # with duplicates
        assert target.item() > wanted * (1 - 1e-5)
    else:
        assert target.item() == pytest.approx(wanted, rel=1e-5)
    assert image.shape == (*data['data_samples'][0].img_shape, 3)
    assert max(found.box[2] for found in kept) <= image.shape[1] + 1


def test_images_are_read_as_the_data_set_does(repo, tiny_cifar, classifier):
    """CIFAR's reader hands over RGB arrays, an image file is read as BGR."""
    cfg = Config.fromfile(classifier[0])
    cfg.test_dataloader.dataset.data_root = str(tiny_cifar(100))
    subject = ModelUnderTest(cfg, str(classifier[1]))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    path = next(CIFAR.glob(f'cifar100_*_{dataset[0]["data_samples"].gt_label.item()}.png'))
    data, image = subject.prepare(path)
    wanted = subject.model.data_preprocessor(pseudo_collate([dataset[0]]))['inputs']
    assert torch.equal(subject.model.data_preprocessor(data)['inputs'], wanted)
    assert np.array_equal(image, cv2.imread(str(path))[..., ::-1])
    assert subject.label(49) == 'mountain' and subject.label(1000) == 'class 1000'


def refused(cli, tmp_path, *argv) -> str:
    out = tmp_path / 'out'
    code, message = cli('look_inside', *argv, '--out', out)
    assert code == 2
    assert not out.exists()
    return message


@pytest.mark.parametrize('kind', ['se', 'plain'])
def test_nothing_to_show(cli, repo, kind, classifier, tmp_path):
    """That is said even where the weights, of another model, do not fit either."""
    argv = [repo / f'configs/cifar100_{kind}.py', classifier[1]]
    message = refused(cli, tmp_path, *argv, DINER)
    assert 'layer_attention must be one' in message
    assert f'got {"SE" if kind == "se" else None}' in message


def test_bad_images(cli, classifier, tmp_path):
    """Alone they end it, beside a good one they are passed over, with a message."""
    broken, empty, folder = tmp_path / 'broken.png', tmp_path / 'empty.png', tmp_path / 'none'
    cut = tmp_path / 'cut.jpg'
    cut.write_bytes(DINER.read_bytes()[:20_000])
    broken.write_bytes(DINER.read_bytes()[:30])
    empty.touch()
    folder.mkdir()
    bad = {
        broken: 'no image',
        cut: 'damaged',
        empty: 'the file is empty',
        tmp_path / 'missing.png': 'No such file',
    }
    for path, words in bad.items():
        message = refused(cli, tmp_path, *classifier, path)
        assert f'passed over: {path}: ' in message and words in message
    message = refused(cli, tmp_path, *classifier, DINER, folder)
    assert f'{folder}: no image in this folder (.bmp, .gif' in message
    good = sorted(CIFAR.glob('cifar100_0[01]*.png'))
    code, message = cli('look_inside', *classifier, broken, *good, cut, '--out', tmp_path / 'out')
    assert code == 0
    numbers = look(tmp_path / 'out')
    assert [one['file'] for one in numbers['by_picture']] == list(map(str, good))
    assert f'passed over: {cut}: ' in message and str(broken) in numbers['passed over']
    assert 'cut.jpg' in (tmp_path / 'out/report.html').read_text()


def test_an_image_that_the_pipeline_cannot_take(cli, small_config, checkpoint, tmp_path):
    narrow = tmp_path / 'narrow.png'
    cv2.imwrite(str(narrow), np.full((2000, 3, 3), 100, np.uint8))
    argv = [small_config, checkpoint, narrow, DINER, '--out', tmp_path / 'out']
    code, message = cli('look_inside', *argv)
    assert code == 0 and f'passed over: {narrow}: an image of 3x2000 pixels' in message
    assert [one['file'] for one in look(tmp_path / 'out')['by_picture']] == [str(DINER)]


def test_no_such_layer(cli, classifier, tmp_path):
    message = refused(cli, tmp_path, *classifier, DINER, '--layer', 'backbone.layer8')
    assert '--layer backbone.layer8' in message and 'backbone.layer3' in message


def test_layer_without_a_map(cli, classifier, tmp_path):
    message = refused(cli, tmp_path, *classifier, DINER, '--layer', 'head.fc')
    assert '--layer head.fc' in message and 'feature map' in message


def test_checkpoint_of_another_model(cli, repo, classifier, checkpoint, tmp_path):
    message = refused(cli, tmp_path, classifier[0], checkpoint, DINER)
    assert 'cannot be used with this config' in message
    message = refused(cli, tmp_path, classifier[0], tmp_path / 'none.pth', DINER)
    assert 'none.pth' in message


def test_bad_options(cli, classifier, tmp_path):
    with pytest.raises(SystemExit) as error:
        cli('look_inside', *classifier, DINER, '--out', tmp_path / 'out', '--score', '2')
    assert error.value.code == 2
    file = tmp_path / 'file'
    file.touch()
    code, message = cli('look_inside', *classifier, DINER, '--out', file)
    assert code == 2 and 'not a folder' in message
