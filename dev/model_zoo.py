"""Write the model index (configs/metafile.yml) and the README's table from the configs."""

import argparse
import functools
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml
from mmengine.config import Config

from mmdla.analysis.complexity import Complexity, measure
from mmdla.reproduce.tables import CIFAR_DEPTHS

ROOT = Path(__file__).resolve().parents[1]
METAFILE = ROOT / 'configs' / 'metafile.yml'
README = ROOT / 'README.md'
START, END = '<!-- table by dev/model_zoo.py -->', '<!-- end of table -->'
COLLECTION = dict(
    Name='DLA-ResNet',
    Metadata=dict(Architecture=['ResNet', 'Layer attention']),
    Paper=dict(URL='https://arxiv.org/abs/2406.13392', Title='Dynamic Layer Attention'),
    README='README.md',
)
TASKS = dict(
    cifar10=('CIFAR-10', 'Image Classification'),
    cifar100=('CIFAR-100', 'Image Classification'),
    imagenet=('ImageNet-1k', 'Image Classification'),
    faster_rcnn=('COCO', 'Object Detection'),
    mask_rcnn=('COCO', 'Instance Segmentation'),
    retinanet=('COCO', 'Object Detection'),
    pspnet=('Cityscapes', 'Semantic Segmentation'),
    deeplabv3plus=('Cityscapes', 'Semantic Segmentation'),
    rotated_retinanet=('DOTA v1.0', 'Oriented Object Detection'),
    td_hm=('COCO', 'Body 2D Keypoint'),
)


SMALL = ('demo', 'nuclei', 'bccd', 'short')  # configs of data that are not those of the tasks


def configs(prefix: str = '') -> list[Path]:
    """Return the shipped configs, without those on small data."""
    found = sorted((ROOT / 'configs').glob(f'{prefix}*.py'))
    return [path for path in found if not path.stem.startswith(SMALL)]


@functools.cache
def size_of(path: Path, depth: int | None = None) -> Complexity:
    """Of a config's model, with another depth of the backbone if given.

    As it was counted before where the library of the config's base is not installed.
    """
    try:
        cfg = Config.fromfile(path)
    except ImportError:
        (known,) = (
            m for m in yaml.safe_load(METAFILE.read_text())['Models'] if m['Name'] == path.stem
        )
        return Complexity(known['Metadata']['Parameters'], known['Metadata']['FLOPs'], (0, 0))
    if depth:
        cfg.model.backbone.depth = depth
    return measure(cfg)


def entry(path: Path) -> dict:
    """Return the model of a config as the model index has it."""
    size = size_of(path)
    data, task = next(TASKS[key] for key in TASKS if path.stem.startswith(f'{key}_'))
    if path.stem.endswith('_ade20k'):
        data = 'ADE20K'
    return dict(
        Name=path.stem,
        Metadata={'Training Data': data, 'Parameters': size.parameters, 'FLOPs': size.macs},
        **{'In Collection': COLLECTION['Name']},
        Results=[dict(Dataset=data, Task=task, Metrics=None)],
        Config=f'configs/{path.name}',
    )


def metafile() -> str:
    content = dict(Collections=[COLLECTION], Models=[entry(path) for path in configs()])
    return '# Written by dev/model_zoo.py.\n' + yaml.safe_dump(content, sort_keys=False)


def table() -> str:
    """Return the README's table: one row a config, CIFAR's with its three depths."""
    rows = ['| config | parameters, M | GMACs | trained? |', '|---|---|---|---|']
    for prefix in (*(key for key in TASKS if 'cifar' not in key and key != 'imagenet'), 'imagenet'):
        for path in configs(prefix):
            rows.append(row(link(path), [size_of(path)], 2))
    for path in configs('cifar100_'):
        sizes = [size_of(path, depth) for depth in CIFAR_DEPTHS]
        twin = path.with_name(path.name.replace('cifar100', 'cifar10'))
        rows.append(row(f'{link(path)}, {link(twin)}: depth 20 / 56 / 110', sizes, 3))
    return '\n'.join(rows)


def link(path: Path) -> str:
    return f'[{path.stem}](configs/{path.name})'


def row(name: str, sizes: list[Complexity], digits: int) -> str:
    parameters = ' / '.join(f'{size.parameters / 1e6:.{digits}f}' for size in sizes)
    macs = ' / '.join(f'{size.macs / 1e9:.{digits}f}' for size in sizes)
    return f'| {name} | {parameters} | {macs} | no |'


def readme(text: str) -> str:
    """``text`` with a new table between the marks."""
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f'{README} lacks the marks {START!r} and {END!r}')
    return f'{before}{START}\n\n{table()}\n\n{END}{after}'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing, fail if out of date')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    made = {METAFILE: metafile(), README: readme(README.read_text())}
    old = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
    if args.check:
        if old:
            names = ', '.join(path.name for path in old)
            sys.exit(f'error: {names} out of date: run python dev/model_zoo.py')
        return
    for path in old:
        part = path.with_name(f'{path.name}.part')
        part.write_text(made[path])
        os.replace(part, path)
        print(f'wrote {path}')


if __name__ == '__main__':
    main()
