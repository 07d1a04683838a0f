"""What several tests need: the tools, tiny data sets, ResNet checkpoints."""

import hashlib
import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.visualization import Visualizer

REPO = Path(__file__).parents[1]
DINER = Path(__file__).parent / 'data' / 'diner'
# name: (left, right edge of the window in the photograph)
WINDOWS = {
    'train2017': {'000000000001.jpg': (0, 500), '000000000002.jpg': (0, 320)},
    'val2017': {'000000000003.jpg': (200, 500), '000000000004.jpg': (100, 400)},
}
UNUSED_COCO_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@pytest.fixture(scope='session')
def repo() -> Path:
    return REPO


@pytest.fixture(scope='session')
def tool():
    """``tool('train')`` is the ``main`` of ``tools/train.py`` or ``dev/train.py``, for many calls."""

    def load(name: str):
        module_name = f'mmdla_tools_{name}'
        if module_name not in sys.modules:
            (path,) = (
                p for folder in ('tools', 'dev') if (p := REPO / folder / f'{name}.py').is_file()
            )
            spec = importlib.util.spec_from_file_location(module_name, path)
            sys.modules[module_name] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(sys.modules[module_name])
        forget_visualizers(Visualizer)
        return sys.modules[module_name].main

    return load


def forget_visualizers(cls: type) -> None:
    """A process has one visualizer of each name; a second run would write to the first's folder."""
    cls._instance_dict.clear()
    for subclass in cls.__subclasses__():
        forget_visualizers(subclass)


@pytest.fixture(scope='session')
def run_process(repo):
    """``run_process(script, *argv)`` runs a script of the repository in a process of its own."""

    def run(script: str, *argv, cwd: Path | None = None) -> subprocess.CompletedProcess:
        paths = [str(repo), os.environ.get('PYTHONPATH', '')]
        return subprocess.run(
            [sys.executable, repo / script, *argv],
            cwd=cwd,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, paths))},
            capture_output=True,
            check=False,
            text=True,
        )

    return run


@pytest.fixture(scope='session')
def tiny_coco(tmp_path_factory) -> Path:
    """Windows of a real photograph with real masks, in the layout and categories of COCO 2017."""
    root = tmp_path_factory.mktemp('coco')
    for split in WINDOWS:
        build_coco_split(root, split)
    return root


def build_coco_split(root: Path, split: str) -> None:
    """Write ``root/{split}/`` and ``root/annotations/instances_{split}.json``."""
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO['classes']
    ids = [i for i in range(1, 91) if i not in UNUSED_COCO_IDS]
    category_ids = dict(zip(names, ids, strict=True))
    photo = cv2.imread(str(DINER / 'photo.jpg'))
    instances = cv2.imread(str(DINER / 'instances.png'), cv2.IMREAD_GRAYSCALE)
    classes = (DINER / 'classes.txt').read_text().splitlines()

    images, annotations = [], []
    (root / split).mkdir()
    for name, (left, right) in WINDOWS[split].items():
        image_id = int(Path(name).stem)
        window = photo[:, left:right]
        cv2.imwrite(str(root / split / name), window)
        images.append(
            dict(id=image_id, file_name=name, height=window.shape[0], width=window.shape[1])
        )
        for number, class_name in enumerate(classes, 1):
            mask = (instances[:, left:right] == number).astype('uint8')
            contours = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            polygons = [c.ravel().tolist() for c in contours if len(c) > 2]
            if polygons:
                annotations.append(
                    dict(
                        id=100 * image_id + number,
                        image_id=image_id,
                        category_id=category_ids[class_name],
                        bbox=list(cv2.boundingRect(mask)),
                        area=int(mask.sum()),
                        segmentation=polygons,
                        iscrowd=0,
                    )
                )
    categories = [dict(id=i, name=name) for name, i in category_ids.items()]
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations').mkdir(exist_ok=True)
    (root / f'annotations/instances_{split}.json').write_text(json.dumps(content))


@pytest.fixture(scope='session')
def tiny_imagenet(tmp_path_factory) -> Path:
    """Two real images of ImageNet classes for each split, with lists of their labels."""
    root = tmp_path_factory.mktemp('imagenet')
    photo = cv2.imread(str(DINER / 'photo.jpg'))
    images = {
        'water_bottle.jpg': (898, photo[250:350, 210:270]),
        'dining_table.jpg': (532, photo[80:210, 70:200]),
    }
    (root / 'meta').mkdir()
    for split in ('train', 'val'):
        (root / split).mkdir()
        for name, (_, image) in images.items():
            cv2.imwrite(str(root / split / name), image)
        lines = [f'{name} {label}' for name, (label, _) in images.items()]
        (root / f'meta/{split}.txt').write_text('\n'.join(lines))
    return root


@pytest.fixture
def tiny_cifar(tmp_path, monkeypatch):
    """``tiny_cifar(100)`` is a folder with real images of CIFAR-100, in its own file format.

    MMPretrain's reader checks the digests of the files, which here are those of fewer images.
    """

    def make(classes: int) -> Path:
        from mmpretrain.datasets import cifar

        dataset = getattr(cifar, f'CIFAR{classes}')
        folder = tmp_path / dataset.base_folder
        folder.mkdir()
        paths = sorted((Path(__file__).parent / 'data/cifar').glob(f'cifar{classes}_*.png'))
        images = [cv2.imread(str(path))[..., ::-1].transpose(2, 0, 1).ravel() for path in paths]
        labels = [int(path.stem.split('_')[2]) for path in paths]
        names = [name for name, _ in dataset.train_list + dataset.test_list]
        key = 'labels' if classes == 10 else 'fine_labels'
        digests = {}
        for i, name in enumerate(names):
            part = slice(i, None, len(names))
            content = {'data': np.stack(images[part]), key: labels[part]}
            data = pickle.dumps(content, protocol=2)
            (folder / name).write_bytes(data)
            digests[name] = hashlib.md5(data).hexdigest()
        for attribute in ('train_list', 'test_list'):
            files = [[name, digests[name]] for name, _ in getattr(dataset, attribute)]
            monkeypatch.setattr(dataset, attribute, files)
        return tmp_path

    return make


@pytest.fixture(scope='session')
def resnet_checkpoint(tmp_path_factory):
    """``resnet_checkpoint(50)`` is a file as torchvision publishes them, with random weights.

    Its batch statistics are those of a real photograph: without them the activations of a random
    ResNet grow with every block.
    """
    files: dict[int, Path] = {}

    def make(depth: int) -> Path:
        if depth not in files:
            import torchvision

            torch.manual_seed(0)
            model = getattr(torchvision.models, f'resnet{depth}')()
            for module in model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.momentum = None  # average over the batches
            photo = cv2.imread(str(DINER / 'photo.jpg'))[..., ::-1].copy()
            image = torch.from_numpy(photo).permute(2, 0, 1)[None] / 60 - 2
            with torch.no_grad():
                model(image[..., ::2, ::2])
            files[depth] = tmp_path_factory.mktemp('weights') / f'resnet{depth}.pth'
            torch.save(model.state_dict(), files[depth])
        return files[depth]

    return make


def save_random_weights(config: Path, classes: tuple[str, ...] = ()) -> Path:
    """Beside a config, in a file as MMEngine writes it; with names of classes, if there are any."""
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    meta = dict(dataset_meta=dict(classes=classes)) if classes else {}
    path = config.with_suffix('.pth')
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path
