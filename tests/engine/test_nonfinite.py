"""Where the first value that is not finite is said to be."""

import math
from contextlib import nullcontext

import pytest
import torch
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn

from mmdla.engine.nonfinite import Call, find_in_forward, named_tensors, nonfinite_kind


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, inputs, data_samples=None):
        return dict(loss=self.layer(inputs).mean())


GOOD, BAD = torch.ones(3, 2), torch.tensor([[1, 1], [1, math.inf], [1, 1]])


def place(*args, model=None, **kwargs) -> str:
    return find_in_forward(model or Model(), Call(args, kwargs), nullcontext())


def test_in_the_arguments():
    """Given by position or by name."""
    sample = BaseDataElement(metainfo=dict(img_path='b.jpg'), boxes=BAD)
    assert place(BAD) == 'it is in the input data: argument 0 holds infinite values'
    assert (
        place(GOOD, [GOOD, BAD]) == 'it is in the input data: argument 1[1] holds infinite values'
    )
    assert place(inputs=BAD) == 'it is in the input data: inputs holds infinite values'
    text = place(inputs=GOOD, data_samples=[sample] * 3)
    assert text == 'it is in the input data: data_samples[0].boxes holds infinite values'
    text = place(
        inputs=BAD,
        data_samples=[BaseDataElement(metainfo=dict(img_path=f'{n}.jpg')) for n in 'abc'],
    )
    assert text.endswith('inputs holds infinite values (image 1 of the batch, b.jpg)')
    assert place(inputs=BAD, data_samples=[BaseDataElement()] * 3).endswith(
        '(image 1 of the batch)'
    )
    assert place(inputs=BAD, data_samples=[sample]).endswith('inputs holds infinite values')


def test_in_none_of_them():
    assert 'did not appear again' in place(GOOD)
    model = Model()
    model.layer.bias.data[0] = math.nan
    assert (
        place(GOOD, model=model) == 'NaN first in the output of layer (Linear); its bias holds NaN'
    )


@pytest.mark.parametrize(
    ('values', 'kind'),
    [
        ([1.0, 2.0], None),
        ([1.0, math.nan], 'NaN'),
        ([1.0, -math.inf], 'infinite values'),
        ([math.inf, math.nan], 'NaN'),
        ([1, 2], None),
        ([], None),
    ],
    ids=str,
)
def test_kinds(values, kind):
    assert nonfinite_kind(torch.tensor(values)) == kind


def test_names_of_what_is_nested():
    boxes = InstanceData(bboxes=GOOD)
    value = dict(a=[GOOD, (GOOD, 3)], b=BaseDataElement(gt=boxes), c='text')
    assert [name for name, _ in named_tensors(value, '')] == ['a[0]', 'a[1][0]', 'b.gt.bboxes']
    assert [name for name, _ in named_tensors(GOOD, 'x')] == ['x']
