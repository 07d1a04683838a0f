"""Damaged COCO annotations and images: the data are right, or the file and the entry are named."""

import json
import random
import shutil

import annotation_damage as damage
import cv2
import numpy as np
import pytest
from hypothesis import settings
from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope
from PIL import Image
from tally import tally

from mmdla.datasets.annotations import Use, check_content
from mmdla.datasets.check_data import check_annotations
from mmdla.datasets.data_errors import explain_data_errors
from mmdla.engine.config import check_work_dir
from mmdla.errors import InputError

ROUNDS = settings.default.max_examples // 3  # 8 in the suite
LOADERS = ('train_dataloader', 'val_dataloader')


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / 'a folder ü'
    damage.write_images(folder / 'train')
    return folder


def config(root, with_mask=False, **dataset) -> Config:
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape')),
    ]
    train = dict(
        type='CocoDataset',
        data_root=f'{root}/',
        ann_file='train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=damage.CLASSES),
        pipeline=pipeline,
        **dataset,
    )
    return Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=train)))


def write(root, content) -> None:
    (root / 'train.json').write_text(content if isinstance(content, str) else json.dumps(content))


def load(cfg):
    with DefaultScope.overwrite_default_scope('mmdet'):
        return DATASETS.build(cfg.train_dataloader.dataset)


def expected(content: dict) -> dict:
    """Boxes by id of the image, as (corners, name of the class, is crowd), from the raw file."""
    names = {c['id']: c['name'] for c in content['categories'] if c['name'] in damage.CLASSES}
    boxes: dict = {image['id']: [] for image in content['images']}
    for ann in content['annotations']:
        x, y, w, h = ann['bbox']
        seen_w = min(x + w, damage.WIDTH) - max(x, 0)
        seen_h = min(y + h, damage.HEIGHT) - max(y, 0)
        if ann['image_id'] in boxes and ann['category_id'] in names and not ann.get('ignore'):
            if min(w, h) >= 1 and ann['area'] > 0 and seen_w > 0 and seen_h > 0:
                box = [x, y, x + w, y + h]
                crowd = bool(ann.get('iscrowd', 0))
                boxes[ann['image_id']].append((box, names[ann['category_id']], crowd))
    return boxes


def assert_right(dataset, content) -> None:
    """What the network would be trained on is what the file means."""
    wanted = expected(content)
    assert len(dataset) == len(wanted)
    for item in dataset:
        sample = item['data_samples']
        boxes = wanted[sample.img_id]
        got = []
        for instances, crowd in ((sample.gt_instances, False), (sample.ignored_instances, True)):
            for box, label in zip(instances.bboxes, instances.labels, strict=True):
                corners = box.tensor[0] if hasattr(box, 'tensor') else box
                got.append((corners.tolist(), dataset.metainfo['classes'][label], crowd))
        assert sorted(got) == sorted(boxes)
        assert sample.img_shape == item['inputs'].shape[1:] == (damage.HEIGHT, damage.WIDTH)


@pytest.mark.parametrize('kind', damage.REFUSED, ids=lambda f: f.__name__)
def test_errors_are_refused_by_file_and_entry(kind, root):
    for i in range(ROUNDS):
        rng = random.Random(i)
        content = damage.annotations(rng)
        kind(content, rng)
        write(root, content)
        with pytest.raises(InputError) as caught:
            check_annotations(config(root), LOADERS)
        assert str(root / 'train.json') in str(caught.value)
        assert len(str(caught.value)) < 2000
        tally('damaged annotations', 'refused', (kind.__name__, i))


@pytest.mark.parametrize('kind', damage.TOLERATED, ids=lambda f: f.__name__)
def test_what_mmdet_documents_gives_the_right_data(kind, root):
    for i in range(ROUNDS // 2):
        rng = random.Random(i)
        content = damage.annotations(rng)
        for change in (*rng.sample(damage.BOXES, rng.randint(0, 3)), kind):
            change(content, rng)
        write(root, content)
        cfg = config(root)
        check_annotations(cfg, LOADERS)
        assert_right(load(cfg), content)
        tally('damaged annotations', 'right data', (kind.__name__, i))


def test_bytes_of_the_file(root):
    """Cut off, with flipped bits: refused, or read as what now stands in it."""
    for i in range(4 * ROUNDS):
        rng = random.Random(i)
        data = bytearray(json.dumps(damage.annotations(rng)).encode())
        if i % 2:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        (root / 'train.json').write_bytes(data)
        cfg = config(root)
        try:
            check_annotations(cfg, LOADERS)
        except InputError as error:
            assert str(root / 'train.json') in str(error)
            outcome = 'refused'
        else:
            assert_right(load(cfg), json.loads(data.decode()))
            outcome = 'right data'
        tally('damaged annotations', outcome, ('bytes', i))


SEGMENTATIONS = {
    'none': (None, False), 'empty': ([], False), 'text': ('abc', False), 'flat': ([1, 2, 3, 4, 5, 6], False),
    'NaN': ([[1, 2, 3, 4, 5, damage.NAN]], False), 'short': ([[1, 2, 3, 4]], True),
    'odd': ([[1, 2, 3, 4, 5, 6, 7]], True), 'no size': ({'counts': [1200]}, False),
    'other size': ({'counts': [1200], 'size': [40, 30]}, False),
    'sum': ({'counts': [1000], 'size': [30, 40]}, False),
    'negative': ({'counts': [-5, 1205], 'size': [30, 40]}, False),
    'right': ({'counts': [200, 300, 700], 'size': [30, 40]}, True),
}  # fmt: skip


@pytest.mark.parametrize('name', SEGMENTATIONS)
def test_segmentations(name, root):
    value, is_right = SEGMENTATIONS[name]
    content = damage.annotations(random.Random(0))
    content['annotations'][0]['segmentation'] = value
    write(root, content)
    cfg = config(root, with_mask=True)
    if is_right:
        check_annotations(cfg, LOADERS)
        for item in load(cfg):
            assert item['data_samples'].gt_instances.masks.masks.shape[1:] == (30, 40)
    else:
        with pytest.raises(InputError, match='annotation 1'):
            check_annotations(cfg, LOADERS)
    tally('damaged annotations', 'right data' if is_right else 'refused', ('segmentation', name))
    check_annotations(config(root), LOADERS)  # not looked at where no mask is loaded


def encoded(array, suffix, **options) -> bytes:
    import io

    file = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(file, suffix, **options)
    return file.getvalue()


RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
SMOOTH = cv2.resize(RGB[:3, :4], (40, 30), interpolation=cv2.INTER_CUBIC)
GRAY = SMOOTH[..., 0]
TURNED = Image.Exif()
TURNED[0x0112] = 6
RIGHT_IMAGES = {  # bytes, and what OpenCV must make of them, RGB
    'gray': (encoded(GRAY, 'PNG'), np.stack([GRAY] * 3, -1)),
    'RGBA': (encoded(np.dstack((SMOOTH, GRAY)), 'PNG'), SMOOTH),
    '16 bit': (encoded(Image.fromarray(GRAY.astype(np.uint16) * 256), 'PNG'), np.stack([GRAY] * 3, -1)),
    'palette': (encoded(Image.fromarray(GRAY).convert('P'), 'PNG'), np.stack([GRAY] * 3, -1)),
    '1 bit': (encoded(Image.fromarray(GRAY > 99), 'PNG'), np.stack([255 * (GRAY > 99)] * 3, -1)),
    'CMYK': (encoded(Image.fromarray(SMOOTH).convert('CMYK'), 'JPEG', quality=100), SMOOTH),
    'gray JPEG': (encoded(GRAY, 'JPEG', quality=100), np.stack([GRAY] * 3, -1)),
    'progressive': (encoded(SMOOTH, 'JPEG', quality=100, progressive=True, subsampling=0), SMOOTH),
    'BMP': (encoded(SMOOTH, 'BMP'), SMOOTH),
    'WebP': (encoded(SMOOTH, 'WEBP', lossless=True), SMOOTH),
    'behind the end': (encoded(SMOOTH, 'PNG') + bytes(99), SMOOTH),
    'far behind the end': (encoded(SMOOTH, 'JPEG', quality=100, subsampling=0) + bytes(70000), SMOOTH),
    'turned by EXIF': (encoded(np.rot90(SMOOTH), 'JPEG', quality=100, subsampling=0, exif=TURNED), SMOOTH),
}  # fmt: skip


@pytest.mark.parametrize('name', RIGHT_IMAGES)
def test_kinds_of_images(name, root):
    """They reach the network in three channels with the right values."""
    data, wanted = RIGHT_IMAGES[name]
    (root / 'train/1.png').write_bytes(data)
    write(root, damage.annotations(random.Random(0)))
    cfg = config(root)
    check_annotations(cfg, LOADERS)
    (got,) = [i['inputs'] for i in load(cfg) if i['data_samples'].img_id == 1]
    error = np.abs(got.numpy()[::-1].transpose(1, 2, 0).astype(int) - wanted)
    assert error.mean() < 3
    tally('damaged annotations', 'right data', ('image', name))


def broken_images() -> dict[str, bytes]:
    whole = {'JPEG': encoded(RGB, 'JPEG'), 'PNG': encoded(RGB, 'PNG')}
    cut = {
        f'{k} cut at {n} %': v[: len(v) * n // 100]
        for k, v in whole.items()
        for n in range(5, 100, 10)
    }
    return cut | {
        'empty': b'', 'text': b'no image', 'zeros': bytes(500), 'JSON': b'{}',
        'other size': encoded(RGB[:20], 'PNG'), 'transposed': encoded(RGB.transpose(1, 0, 2), 'PNG'),
        'turned': encoded(RGB, 'JPEG', exif=TURNED), 'without its last byte': whole['JPEG'][:-1],
    }  # fmt: skip


@pytest.mark.parametrize('name', broken_images())
def test_broken_images(name, root):
    (root / 'train/2.png').write_bytes(broken_images()[name])
    write(root, damage.annotations(random.Random(0)))
    with pytest.raises(InputError, match=r'(?s)train\.json.*train/2\.png'):
        check_annotations(config(root), LOADERS)
    tally('damaged annotations', 'refused', ('image', name))


def test_thousand_annotations_of_a_kind_are_one_line(root):
    content = damage.annotations(random.Random(0))
    one = content['annotations'][0]
    content['annotations'] = [one | dict(id=i, bbox=[1, 2, 3]) for i in range(1000)]
    write(root, content)
    with pytest.raises(InputError) as caught:
        check_annotations(config(root), LOADERS)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert (
        '(1000)' in lines[1] and 'annotation 0 has [1, 2, 3]' in lines[1] and '997 more' in lines[1]
    )


def test_several_problems_are_reported_at_once(root):
    content = damage.annotations(random.Random(0))
    content['annotations'][3]['bbox'] = None
    content['annotations'][4]['category_id'] = 77
    content['images'][2]['width'] = 0
    write(root, content)
    with pytest.raises(InputError, match=r'(?s)image 3.*annotation 4.*annotation 5 has 77'):
        check_annotations(config(root), LOADERS)


def test_evaluation_files_and_test_sets(root):
    """What is only evaluated needs no boxes, nor images' annotations at all."""
    content = damage.annotations(random.Random(0))
    del content['annotations']
    write(root, content)
    cfg = config(root, test_mode=True)
    check_annotations(cfg, LOADERS)
    cfg.train_evaluator = dict(type='CocoMetric', ann_file=str(root / 'other.json'))
    (root / 'other.json').write_text('{}')
    with pytest.raises(InputError, match=r'other\.json'):
        check_annotations(cfg, LOADERS)


def test_errors_that_are_left_to_the_dataset_are_explained(root):
    """An image that breaks after the check is still named."""
    write(root, damage.annotations(random.Random(0)))
    cfg = config(root)
    shutil.rmtree(root / 'train')
    with pytest.raises(InputError, match=r'\.png'), explain_data_errors(cfg, LOADERS):
        for _ in load(cfg):
            pass


def test_work_dirs(tmp_path, monkeypatch):
    check_work_dir(str(tmp_path / 'new/folders/ü and more'))
    assert not list(tmp_path.iterdir())
    (tmp_path / 'file').touch()
    with pytest.raises(InputError, match=r'--work-dir.*is not a folder'):
        check_work_dir(str(tmp_path / 'file/run'))
    monkeypatch.setattr('os.access', lambda path, mode: False)  # root may write everywhere
    with pytest.raises(InputError, match=r'--work-dir.*cannot be written'):
        check_work_dir(str(tmp_path / 'run'))


def test_coco_itself_takes_seconds():
    """118,000 images and 860,000 boxes would; measured here on a tenth of the boxes."""
    import time

    rng = random.Random(0)
    content = damage.annotations(rng)
    content['images'] = [content['images'][0] | dict(id=i) for i in range(12_000)]
    one = content['annotations'][0]
    content['annotations'] = [one | dict(id=i, image_id=i % 12_000) for i in range(86_000)]
    start = time.process_time()
    found = check_content(content, Use('x.json', classes=damage.CLASSES, trains=True))
    assert not found.counts
    assert time.process_time() - start < 3
