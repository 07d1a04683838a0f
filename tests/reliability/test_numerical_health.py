"""Half precision: training goes on for long, and large numbers do not overflow."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import settings

from mmdla import DSU, DLAResNet_CIFAR
from mmdla.models.layer_attention import KCLA, DLABase, DLALight, MRLABase, MRLALight
from mmdla.models.layer_attention.heads import pool

STEPS = settings.default.max_examples // 2 + 4  # 16 in the suite, 254 in the long run
HALF = {'fp16': torch.float16, 'bf16': torch.bfloat16}
KINDS = {cls.__name__: cls for cls in (DLALight, DLABase, MRLALight, MRLABase, KCLA)}


def real_images():
    """Twenty real images of ten classes."""
    paths = sorted((Path(__file__).parents[1] / 'data/cifar').glob('cifar10_*.png'))
    images = np.stack([cv2.imread(str(path)) for path in paths])
    labels = torch.tensor([int(path.stem.split('_')[2]) for path in paths])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 64 - 2, labels


# float16 has no fast kernels on CPUs: with the two attentions that differ most
@pytest.mark.parametrize(
    ('kind', 'dtype'),
    [*((kind, 'bf16') for kind in (*KINDS, 'RLA')), ('DLALight', 'fp16'), ('DLABase', 'fp16')],
)
def test_training_under_autocast(kind, dtype):
    torch.manual_seed(0)
    attention = dict(type=kind) | (dict(head_channels=8) if kind in KINDS else {})
    attention |= dict(reduction=4) if 'DLA' in kind else {}
    backbone = DLAResNet_CIFAR(20, base_channels=8, strides=(2, 2, 2), layer_attention=attention)
    backbone.init_weights()
    head = torch.nn.Linear(128, 10)
    model = torch.nn.ModuleList((backbone, head)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scaler = torch.amp.GradScaler('cpu', enabled=dtype == 'fp16')
    images, labels = real_images()
    losses = []
    for _ in range(STEPS):
        with torch.autocast('cpu', dtype=HALF[dtype]):
            scores = head(backbone(images)[-1].mean((2, 3)))
            loss = torch.nn.functional.cross_entropy(scores.float(), labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert all(np.isfinite(losses))
    assert np.mean(losses[-3:]) < (0.8 if STEPS < 100 else 0.05) * np.mean(losses[:3])
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(b.isfinite().all() for b in model.buffers())
    if dtype == 'fp16':  # a step with an overflow halves the scale
        assert scaler.get_scale() >= 2.0**14


@pytest.mark.parametrize('dtype', HALF)
def test_pooling_of_a_whole_photograph(dtype):
    """The sum over 200x304 pixels is 10^7 times what float16 can be."""
    x = (1000 + 100 * torch.randn(1, 8, 200, 304, dtype=torch.float64)).to(HALF[dtype])
    torch.testing.assert_close(pool(x).double(), pool(x.double()), rtol=1e-2, atol=0)


@pytest.mark.parametrize('dtype', HALF)
@pytest.mark.parametrize('size', [1.0, 100.0, 1000.0])
@pytest.mark.parametrize('kind', KINDS)
def test_large_activations(kind, size, dtype):
    """Every block, against float64 with the same weights and maps."""
    torch.manual_seed(0)
    kwargs = dict(reduction=4) if 'DLA' in kind else {}
    half = KINDS[kind](32, 3, head_channels=32, **kwargs).eval().to(HALF[dtype])
    exact = KINDS[kind](32, 3, head_channels=32, **kwargs).eval().double()
    exact.load_state_dict(half.state_dict())
    x = (size * torch.rand(2, 32, 9, 7, dtype=torch.float64)).to(HALF[dtype])
    states = [None, None]
    with torch.no_grad():
        for index in range(3):
            got, states[0] = half.attend(index, x, x, states[0])
            wanted, states[1] = exact.attend(index, x.double(), x.double(), states[1])
            assert got.dtype == HALF[dtype] and got.isfinite().all()
            error = (got.double() - wanted).norm() / wanted.norm()
            assert error < (0.01 if dtype == 'fp16' else 0.06), (index, error)


@pytest.mark.parametrize('dtype', HALF)
def test_similar_queries_and_keys(dtype):
    """q·k beyond float16's 65504: the weights are those of float64, not NaN."""
    torch.manual_seed(0)
    q, k = (300 * torch.rand(2, 3, 64, dtype=torch.float64).to(HALF[dtype]) for _ in 'qk')
    heads = MRLABase(64, 1).blocks[0]
    scores = heads.similarity(q, k)
    assert scores.dtype == torch.float32 and scores.isfinite().all()
    exact = heads.similarity(q.double(), k.double())
    torch.testing.assert_close(scores.softmax(1).double(), exact.softmax(1), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('form', ['released', 'shared'])
@pytest.mark.parametrize('dtype', HALF)
def test_unit_of_large_descriptors(form, dtype):
    torch.manual_seed(0)
    unit = DSU(256, 16, form=form)
    y = (5000 * torch.rand(4, 256, dtype=torch.float64)).to(HALF[dtype])
    half, exact = unit.to(HALF[dtype]), DSU(256, 16, form=form).double()
    exact.load_state_dict(half.state_dict())
    states = [None, None]
    for _ in range(40):
        states = [half(y, states[0]), exact(y.double(), states[1])]
    for got, wanted in zip(*states, strict=True):
        assert got.isfinite().all()
        # on the average: single gates whose argument is near 0 feel the rounding of the others
        assert (got.double() - wanted).abs().mean() < 0.02 * wanted.abs().max()
