"""The table of features: rows of libraries that are not installed stay as they were."""

import pytest

BEFORE = """
| backbone, library | `A` | `B` |
|---|---|---|
| `DLAResNet`, MMDetection | no | no |
| `DLAResNet`, MMPose | yes | no |
| `RegNet`, MMDetection | no | no |
"""


@pytest.fixture
def module(tool):
    return tool('feature_table').__globals__


def test_new_rows_and_old_ones(module):
    cells = {
        'DLAResNet, mmdet': dict(A='yes', B='trains'),
        'RegNet, mmdet': dict(A='yes', B='no'),
        'RegNet, mmpretrain': dict(A='no', B='yes'),
    }
    assert module['table'](cells, BEFORE).splitlines() == [
        '| backbone, library | `A` | `B` |',
        '|---|---|---|',
        '| `DLAResNet`, MMDetection | yes | trains |',
        '| `DLAResNet`, MMPose | yes | no |',
        '| `RegNet`, MMDetection | yes | no |',
        '| `RegNet`, MMPretrain | no | yes |',
    ]


def test_nothing_is_written_without_marks_or_with_failures(module, tmp_path, monkeypatch):
    readme = tmp_path / 'README.md'
    readme.write_text('no table')
    monkeypatch.setitem(module, 'README', readme)
    with pytest.raises(ValueError, match='lacks the marks'):
        module['main']()
    readme.write_text(f'{module["START"]}\n{module["END"]}')
    monkeypatch.setattr(pytest, 'main', lambda *args, **kwargs: 1)
    with pytest.raises(SystemExit, match='nothing was written'):
        module['main']()
    assert readme.read_text() == f'{module["START"]}\n{module["END"]}'
