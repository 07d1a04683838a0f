"""Nothing is left out on the pinned stack, and only what has a reason elsewhere."""

import pytest
from left_out import LEFT_OUT, left_out_here, reason_for

ANY = 'tests/ops/test_triton.py::test_x[1]'


def test_nothing_is_left_out_on_current_pytorch():
    assert not left_out_here('2.11.0')
    assert len(left_out_here('2.4.1')) == len(LEFT_OUT)
    assert all(reason_for(ids[0].replace('*', 'x'), '2.11.0+cpu') is None for _, ids, _ in LEFT_OUT)


@pytest.mark.parametrize(
    ('test', 'left_out'),
    [
        (ANY, True),
        ('tests/cli/test_export.py::test_backbone[DLALight-dynamo]', True),
        ('tests/cli/test_export.py::test_backbone[DLALight-torchscript]', False),
        ('tests/ops/test_operations.py::test_x[1]', False),
    ],
)
def test_by_id(test, left_out):
    assert bool(reason_for(test, '2.4.1')) is left_out


def test_each_names_a_test_file(repo):
    for _, ids, reason in LEFT_OUT:
        assert reason
        assert all((repo / name.split('::')[0]).is_file() for name in ids)
