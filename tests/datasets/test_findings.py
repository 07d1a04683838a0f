"""What a check has to say, counted and short."""

import pytest

from mmdla.datasets.findings import Findings


def test_the_first_three_and_how_many_more():
    found = Findings('a.json')
    for number in range(5):
        found.problem('ids', f'number {number}', number)
    found.problem('sizes', 'image 1')
    assert found.error() == (
        'a.json: cannot be used\n'
        '  ids (5): number 0 has 0, number 1 has 1, number 2 has 2, and 2 more\n'
        '  sizes (1): image 1'
    )


@pytest.mark.parametrize('length', [57, 58, 59, 100])
def test_long_values_are_shortened(length):
    """To 60 characters, quotation marks and dots included."""
    found = Findings('a.json')
    found.problem('ids', 'here', 'x' * length)
    shown = found.problems['ids'][0].removeprefix('here has ')
    assert shown == (f"'{'x' * length}'" if length <= 58 else f"'{'x' * 56}...")
    assert len(shown) <= 60


def test_remarks_are_no_error():
    found = Findings('a.json')
    found.remark('images', 3)
    found.remark('boxes', 0)
    found.remark('crowds')
    found.remark('crowds')
    assert found.error() is None
    assert found.summary() == 'a.json: 3 images, 2 crowds'
