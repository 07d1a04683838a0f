"""Numbers and figures of a record, against numbers made by hand."""

import numpy as np
import pytest
import torch

from mmdla.analysis.inspection import StageRecord
from mmdla.analysis.inspection.catalogue import FIGURES
from mmdla.analysis.inspection.figures import draw, to_array, to_png
from mmdla.analysis.inspection.hook import scalars

BY_NAME = {kind.name: kind for kind in FIGURES}
# two images, one head, two blocks
WEIGHTS = torch.tensor([[[[1, 0], [0.2, 0.8]]], [[[1, 0], [0.4, 0.6]]]])
GATES = torch.tensor([[[0.1, 0.3], [0.5, 0.9]], [[0.1, 0.3], [0.5, 0.5]]])  # two heads
LAMBDAS = torch.tensor([[-1.0, 0, 1, 4], [2, 2, 2, 2]])
STAGE = StageRecord('layer1', 'Made', weights=WEIGHTS, gates=GATES, lambdas=LAMBDAS)


def test_summary():
    found = STAGE.summary()
    np.testing.assert_allclose(found['weights'], [[1, 0], [0.3, 0.7]], atol=1e-6)
    np.testing.assert_allclose(found['gates']['mean'], [0.2, 0.6], atol=1e-6)
    np.testing.assert_allclose(found['lambdas']['mean'], [1, 2])
    np.testing.assert_allclose(found['lambdas']['quantiles']['50%'], [0.5, 2])
    assert list(found['lambdas']['quantiles']) == ['5%', '25%', '50%', '75%', '95%']
    assert STAGE.num_blocks == 2


def test_scalars():
    assert scalars([STAGE]) == pytest.approx(
        {
            'layer_attention/layer1/weights/block1': 1,
            'layer_attention/layer1/weights/block2': 0.7,
            'layer_attention/layer1/gates/block1': 0.2,
            'layer_attention/layer1/gates/block2': 0.6,
            'layer_attention/layer1/lambdas/block1': 1,
            'layer_attention/layer1/lambdas/block2': 2,
        }
    )


def test_heat_map():
    axes = draw(BY_NAME['weights'], [STAGE]).axes[0]
    shown = axes.images[0].get_array()
    np.testing.assert_allclose(shown.filled(-1), [[1, -1], [0.3, 0.7]], atol=1e-6)
    assert [text.get_text() for text in axes.texts] == ['1.00', '0.30', '0.70']


def test_spread():
    axes = draw(BY_NAME['gates'], [STAGE]).axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[1, 0.2], [2, 0.5]], atol=1e-6)
    bars = sorted((bar.get_y(), bar.get_y() + bar.get_height()) for bar in axes.patches[2:4])
    np.testing.assert_allclose(bars, [(0.1, 0.3), (0.5, 0.6)], atol=1e-6)  # quartiles


@pytest.mark.parametrize('blocks', [1, 2, 36])
def test_every_kind_is_drawn(blocks):
    names = {name for kind in FIGURES for name in kind.series}
    found = {name: torch.rand(2, blocks, 8) for name in names}
    found['weights'] = torch.rand(2, 4, blocks, blocks)
    found['kept'] = torch.rand(2, blocks, blocks, 8)
    found['lambdas'] = torch.randn(blocks, 8)
    stage = StageRecord('layer1', 'All', **found)
    assert stage.quantities.keys() == names, 'every quantity is in a figure'
    for kind in FIGURES:
        one, two = (to_array(draw(kind, [stage] * n)) for n in (1, 2))
        assert two.shape == (one.shape[0], 2 * one.shape[1], 3)
        assert len(np.unique(one)) > 20
    assert to_png(draw(FIGURES[0], [stage])).startswith(b'\x89PNG')


def test_figures_of_what_there_is():
    assert [kind.name for kind in FIGURES if kind.is_in(STAGE)] == ['weights', 'gates', 'lambdas']
