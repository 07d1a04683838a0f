"""Segmentation, oriented boxes, keypoints: the configs train and evaluate on a little real data."""

import importlib.util
import json
from pathlib import Path

import cv2
import pytest
from fixtures import DINER, WINDOWS
from installed_hosts import HOSTS

SEGMENTATION = [
    f'{name}_dla_r50{data}' for name in ('deeplabv3plus', 'pspnet') for data in ('', '_ade20k')
]
CONFIGS = [*SEGMENTATION, 'rotated_retinanet_dla_r50', 'td_hm_dla_r50_coco']
SHORT = [
    'default_hooks.logger.interval=1',
    'default_hooks.checkpoint.interval=-1',
    'default_hooks.checkpoint.save_last=False',
    'randomness.seed=0',
]


def windows(split: str):
    """Image and masks (numbered from 1) of each window of the photograph."""
    photo = cv2.imread(str(DINER / 'photo.jpg'))
    instances = cv2.imread(str(DINER / 'instances.png'), cv2.IMREAD_GRAYSCALE)
    for name, (left, right) in WINDOWS[f'{split}2017'].items():
        yield Path(name).stem, photo[:, left:right], instances[:, left:right]


def write(path: Path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture(scope='session')
def cityscapes(tmp_path_factory) -> Path:
    """In the layout of Cityscapes: an object's class is its number, what is none is ignored."""
    root = tmp_path_factory.mktemp('cityscapes')
    for split in ('train', 'val'):
        for name, image, labels in windows(split):
            labels = (labels % 19) - (labels == 0).astype(labels.dtype)  # 0 to 255, ignored
            write(root / f'leftImg8bit/{split}/diner/{name}_leftImg8bit.png', image)
            write(root / f'gtFine/{split}/diner/{name}_gtFine_labelTrainIds.png', labels)
    return root


@pytest.fixture(scope='session')
def ade20k(tmp_path_factory) -> Path:
    """In the layout of ADE20K, whose classes are numbered from 1."""
    root = tmp_path_factory.mktemp('ade20k')
    for split, folder in (('train', 'training'), ('val', 'validation')):
        for name, image, labels in windows(split):
            write(root / f'images/{folder}/{name}.jpg', image)
            write(root / f'annotations/{folder}/{name}.png', labels)
    return root


@pytest.fixture(scope='session')
def dota(tmp_path_factory) -> Path:
    """In the layout of DOTA: the least rectangle around each object, all of them called ships."""
    root = tmp_path_factory.mktemp('dota')
    (root / 'trainval/annfiles').mkdir(parents=True)
    for name, image, labels in windows('train'):
        write(root / f'trainval/images/{name}.png', image)
        lines = []
        for number in sorted({*labels.ravel()} - {0}):
            points = cv2.findNonZero((labels == number).astype('uint8'))
            corners = cv2.boxPoints(cv2.minAreaRect(points)).ravel()
            lines.append(' '.join([*(f'{c:.1f}' for c in corners), 'ship', '0']))
        (root / f'trainval/annfiles/{name}.txt').write_text('\n'.join(lines))
    return root


@pytest.fixture(scope='session')
def keypoints(tmp_path_factory) -> Path:
    """In the layout of COCO's persons: each object one, whose 17 keypoints are on its outline."""
    root = tmp_path_factory.mktemp('keypoints')
    (root / 'annotations').mkdir()
    for split in ('train', 'val'):
        images, annotations = [], []
        for name, image, labels in windows(split):
            write(root / f'{split}2017/{name}.jpg', image)
            height, width = labels.shape
            images.append(dict(id=int(name), file_name=f'{name}.jpg', height=height, width=width))
            for number in sorted({*labels.ravel()} - {0}):
                mask = (labels == number).astype('uint8')
                outline = max(
                    cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)[0], key=len
                )
                points = outline[[len(outline) * i // 17 for i in range(17)], 0]
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=int(name),
                        category_id=1,
                        bbox=list(cv2.boundingRect(mask)),
                        area=int(mask.sum()),
                        keypoints=[int(v) for x, y in points for v in (x, y, 2)],
                        num_keypoints=17,
                        iscrowd=0,
                    )
                )
        content = dict(
            images=images, annotations=annotations, categories=[dict(id=1, name='person')]
        )
        path = root / f'annotations/person_keypoints_{split}2017.json'
        path.write_text(json.dumps(content))
    return root


def loaders(root: Path) -> list[str]:
    options = ['train_dataloader.batch_size=2']
    for split in ('train', 'val', 'test'):
        options += [
            f'{split}_dataloader.num_workers=0',
            f'{split}_dataloader.persistent_workers=False',
            f'{split}_dataloader.dataset.data_root={root}',
        ]
    return options


def segmentation_options(root: Path) -> list[str]:
    return [
        *SHORT,
        *loaders(root),
        'model.pretrained=None',
        'model.data_preprocessor.size=(64,128)',
        'train_dataloader.dataset.pipeline.2.scale=(256,128)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,128)',
        'val_dataloader.dataset.pipeline.1.scale=(128,64)',
        'train_cfg.max_iters=2',
        'train_cfg.val_interval=2',
    ]


def losses_and_metrics(folder: Path) -> tuple[list[float], dict]:
    (log,) = folder.glob('*/vis_data/scalars.json')
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row['loss'] for row in rows if 'loss' in row], rows[-1]


# the first is trained by the host's tool, below
@pytest.mark.parametrize('name', [name for name in SEGMENTATION if name != 'pspnet_dla_r50'])
def test_segmentation(name, tool, repo, request, tmp_path):
    root = request.getfixturevalue('ade20k' if 'ade20k' in name else 'cityscapes')
    argv = [str(repo / f'configs/{name}.py'), '--work-dir', str(tmp_path), '--cfg-options']
    tool('train')([*argv, *segmentation_options(root)])
    losses, metrics = losses_and_metrics(tmp_path)
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses), losses
    assert 0 <= metrics['mIoU'] <= 100 and 0 <= metrics['aAcc'] <= 100


def test_segmentation_by_the_hosts_tool(repo, run_process, cityscapes, tmp_path):
    """Which does not import mmdla before it reads the config."""
    config = repo / 'configs/pspnet_dla_r50.py'
    argv = ['mmseg', 'mmpretrain', config, '--work-dir', tmp_path, '--cfg-options']
    result = run_process(
        'tests/integration/host_train.py', *argv, *segmentation_options(cityscapes)
    )
    assert result.returncode == 0, result.stderr
    losses, metrics = losses_and_metrics(tmp_path)
    assert len(losses) == 2 and 0 <= metrics['mIoU'] <= 100


ROTATED = [
    *SHORT,
    'train_cfg.max_epochs=2',
    'train_cfg.val_interval=2',
    'train_dataloader.dataset.pipeline.3.scale=(160,128)',
    'val_dataloader.dataset.pipeline.1.scale=(160,128)',
    'model.test_cfg.score_thr=0.0',
    'model.test_cfg.nms_pre=5',
    'model.test_cfg.max_per_img=20',
]


def check_rotated_boxes(tool, repo, dota, resnet_checkpoint, tmp_path):
    config = str(repo / 'configs/rotated_retinanet_dla_r50.py')
    weights = f'model.backbone.init_cfg.checkpoint={resnet_checkpoint(50)}'
    argv = [config, '--work-dir', str(tmp_path), '--cfg-options', weights, *ROTATED, *loaders(dota)]
    tool('train')(argv)
    losses, metrics = losses_and_metrics(tmp_path)
    assert len(losses) == 2 and all(0 < loss < 1000 for loss in losses), losses
    assert 0 <= metrics['dota/mAP'] <= 1


@pytest.mark.parametrize('own', [True, False], ids=['ours', 'of the host'])
def check_keypoints(own, tool, run_process, repo, keypoints, resnet_checkpoint, tmp_path):
    options = [
        *SHORT,
        *loaders(keypoints),
        f'model.backbone.init_cfg.checkpoint={resnet_checkpoint(50)}',
        f'val_evaluator.ann_file={keypoints}/annotations/person_keypoints_val2017.json',
        'val_dataloader.batch_size=4',
        'val_dataloader.dataset.bbox_file=None',
        'train_cfg.max_epochs=1',
        'train_cfg.val_interval=1',
    ]
    argv = [
        str(repo / 'configs/td_hm_dla_r50_coco.py'),
        '--work-dir',
        str(tmp_path),
        '--cfg-options',
    ]
    if own:
        tool('train')([*argv, *options])
    else:
        argv = ['mmpose', 'mmpretrain', *argv, *options]
        result = run_process('tests/integration/host_train.py', *argv)
        assert result.returncode == 0, result.stderr
    losses, metrics = losses_and_metrics(tmp_path)
    assert len(losses) >= 2 and all(0 < loss < 100 for loss in losses), losses
    assert 0 <= metrics['coco/AP'] <= 1


# what a stack does not have is not collected
if 'mmrotate' in HOSTS:
    test_rotated_boxes = check_rotated_boxes
if 'mmpose' in HOSTS:
    test_keypoints = check_keypoints


@pytest.mark.parametrize('name', sorted(HOSTS))
def test_hosts_are_there(name):
    assert importlib.util.find_spec(name)
