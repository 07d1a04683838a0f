"""Measure what DLA-B's refreshes leave of old values, before and after training on the digits.

``python docs/figures/refresh.py --depths 56 110`` prints the table of docs/reliability.md and draws
docs/figures/refresh.svg. It needs the digits (``python projects/demo/digits.py``).
"""

import argparse
from copy import deepcopy
from pathlib import Path

import cv2
import matplotlib

matplotlib.use('svg')
import matplotlib.pyplot as plt
import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import MODELS, DefaultScope
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from mmdla import record
from mmdla.engine.config import register_host_modules

ROOT = Path(__file__).resolve().parents[2]
FILE = Path(__file__).with_suffix('.svg')
COLORS = dict(released='#b45f06', residual='#a0296b')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--depths', type=int, nargs='+', default=[56])
    parser.add_argument('--epochs', type=int, default=6)
    parser.add_argument('--data', type=Path, default=ROOT / 'data/digits')
    return parser.parse_args()


def digits(folder: Path, per_class: int) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32), normalized, and labels."""
    paths = [p for label in range(10) for p in sorted((folder / str(label)).iterdir())[:per_class]]
    images = np.stack([cv2.imread(str(p)).transpose(2, 0, 1) for p in paths])
    labels = torch.tensor([int(p.parent.name) for p in paths])
    return (torch.from_numpy(images).float() - 25.2) / 69.6, labels


def make(cfg: Config, depth: int, refresh: str) -> nn.Module:
    model = deepcopy(cfg.model)
    model.backbone.depth = depth
    model.backbone.layer_attention.refresh = refresh
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        built = MODELS.build(model)
    built.init_weights()
    return built


def scores(model: nn.Module, x: Tensor) -> Tensor:
    return model.head(model.neck(model.backbone(x)))


@torch.no_grad()
def kept(model: nn.Module, x: Tensor) -> np.ndarray:
    """Part of the value of block ``m`` that the last block sees: stages x blocks, geometric mean.

    In training mode, so that the batch norms do what they did while the model was trained.
    """
    state = deepcopy(model.state_dict())
    with record(model.train()) as recording:
        scores(model, x)
    model.load_state_dict(state)  # the running statistics
    rows = [
        stage.kept[:, -1].clamp_min(1e-12).log().mean((0, 2)).exp() for stage in recording.stages()
    ]
    return torch.stack(rows).cpu().numpy()


def train(model: nn.Module, x: Tensor, labels: Tensor, epochs: int) -> None:
    model.train()
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    batches = len(x) // 32
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32)[:batches]:
            loss = cross_entropy(scores(model, x[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    model.eval()
    found = torch.cat([scores(model, part).argmax(1) for part in x.split(200)])
    return 100 * (found == labels).float().mean().item()


def main() -> None:
    args = parse_args()
    MMLogger.get_current_instance().setLevel('ERROR')  # every parameter's initialization
    cfg = Config.fromfile(ROOT / 'configs/demo_digits_dla_b.py')
    register_host_modules(cfg)
    x, labels = digits(args.data / 'train', 100)
    held_out = digits(args.data / 'val', 100)
    some = x[::20]  # 50 images, of all classes
    figure, axes = plt.subplots(
        1, len(args.depths), figsize=(4.2 * len(args.depths), 3), squeeze=False
    )
    print(
        '| depth | `refresh` | left at the start, stages 1 / 2 / 3 | after training | accuracy, % |'
    )
    print('|---|---|---|---|---|')
    for axis, depth in zip(axes[0], args.depths, strict=True):
        for refresh, color in COLORS.items():
            model = make(cfg, depth, refresh)
            before = kept(model, some)
            train(model, x, labels, args.epochs)
            after = kept(model, some)
            row = [' / '.join(f'{100 * v:.3g} %' for v in part[:, 0]) for part in (before, after)]
            top = accuracy(model, *held_out)
            print(f'| {depth} | {refresh} | {row[0]} | {row[1]} | {top:.1f} |', flush=True)
            blocks = range(1, before.shape[1] + 1)
            axis.plot(blocks, before[-1], ':', color=color, label=f'{refresh}, at the start')
            axis.plot(blocks, after[-1], '-o', ms=3, color=color, label=f'{refresh}, trained')
        axis.set(yscale='log', title=f'depth {depth}, last stage', xlabel='value of block')
    axes[0][0].set_ylabel('part left for the last block')
    axes[0][-1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(FILE, metadata=dict(Date=None))


if __name__ == '__main__':
    main()
