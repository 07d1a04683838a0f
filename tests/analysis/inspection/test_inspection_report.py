"""The report needs nothing but itself, whatever stands in it."""

import numpy as np
import torch
from self_contained import check_self_contained

from mmdla.analysis.inspection.photos import encode, overlay
from mmdla.analysis.inspection.report import Figure, Part, Report, Section

IMAGE = np.random.default_rng(0).integers(0, 255, (8, 12, 3), dtype=np.uint8)


def test_report():
    figures = [Figure(encode(IMAGE, ending), f'a {ending}', 'below') for ending in ('.png', '.jpg')]
    rows, colors = [('cat', 0.25), ('dog', 1.0)], [('#ff0000', '2 × <i>')]
    section = Section('Trees & <b>', ['first', 'second'], figures, rows, colors)
    key = Figure(encode(IMAGE, '.png'), 'a key')
    report = Report(
        'Title', ['config: a<b>.py'], ['intro'], [Part('Part', ['text'], [section], key)]
    )
    report.terms = dict(head='a group')
    parts = check_self_contained(report.html())
    assert sum(tag == 'img' for tag, _ in parts.tags) == 3
    assert not {'b', 'i'} & {tag for tag, _ in parts.tags}, 'names are no markup'
    for text in ('Title', 'config: a<b>.py', 'intro', 'Part', 'Trees & <b>', 'second', 'below'):
        assert text in parts.text
    assert '2 × <i>' in parts.text
    assert ('span', dict(style='background:#ff0000')) in parts.tags
    assert '25.0 %' in parts.text and 'a group' in parts.text
    widths = [a['style'] for t, a in parts.tags if t == 'div' and 'width' in a.get('style', '')]
    assert widths == ['width:25.0%', 'width:100.0%']
    assert ('meta', dict(name='viewport', content='width=device-width, initial-scale=1')) in (
        parts.tags
    )


def test_overlay_leaves_out_the_padding():
    """The right half of what the map covers is padding."""
    values = torch.tensor([[0.0, 1.0, 5.0, 5.0]]).repeat(2, 1)
    image = np.full((16, 32, 3), 128, np.uint8)
    drawn = overlay(image, values, (16, 64), lowest=0).astype(int)
    assert drawn.shape == (240, 480, 3)
    assert abs(drawn[120, 5] - 128).max() < 3, 'nothing there: the grey photograph'
    assert drawn[120, 470, 0] > 220 and drawn[120, 470, 2] < 190, 'the maximum: yellow'
