"""How many images the check of a data set looks at."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mmdla.datasets import images as images_module
from mmdla.datasets.findings import Findings
from mmdla.datasets.images import check_images


@pytest.fixture
def folder(tmp_path):
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(tmp_path / 'a.png')
    return tmp_path


@pytest.mark.parametrize(('seconds', 'looked_at'), [(None, 300), (60, 300), (0, 256)])
def test_as_many_as_the_time_allows(folder, seconds, looked_at):
    """At least one part, of 256."""
    images = [dict(file_name='a.png', width=4, height=3)] * 300
    found = Findings('a.json')
    check_images(images, str(folder), found, seconds)
    assert not found.error()
    assert found.remarks['images looked at'] == looked_at


def test_in_random_order(folder, monkeypatch):
    """Whatever lies behind the first part of a file can be among those looked at."""
    # of this module alone: other threads of the tests ask for the time too
    clock = SimpleNamespace(monotonic=iter(range(9)).__next__)
    monkeypatch.setattr(images_module, 'time', clock)
    images = [dict(file_name='a.png', width=4, height=3)] * 256
    images += [dict(file_name=f'{i}.png', width=4, height=3) for i in range(256)]
    found = Findings('a.json')
    check_images(images, str(folder), found, 0)
    assert found.remarks['images looked at'] == 256
    assert 64 < found.counts['images that are not there'] < 192
    assert [image['file_name'] for image in images[:256]] == ['a.png'] * 256, 'left as they were'
