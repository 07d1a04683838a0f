"""The benchmark measures what it says, on a network small enough for a test."""

import json

import pytest


def test_small_network(tool, tmp_path, capsys):
    argv = '--network cifar20 --attention DLABase SE --mode inference train --shape 2x3x32x32'
    tool('benchmark')([*argv.split(), '--rounds', '3', '--device', 'cpu', '--out', str(tmp_path)])
    result = json.loads((tmp_path / 'benchmark.json').read_text())
    rows = {
        (row['case'].split()[1], row['case'].split()[2], row['model']): row
        for row in result['rows']
    }
    assert {model for kind, _, model in rows if kind == 'DLABase'} == {'plain', 'reference', 'auto'}
    assert {model for kind, _, model in rows if kind == 'SE'} == {'plain', 'ours'}
    for (_, mode, model), row in rows.items():
        assert row['quartiles'][0] <= row['ratio'] <= row['quartiles'][1]
        assert (row['saved'] is None) == (mode == 'inference')
        if model == 'plain':
            assert row['ratio'] == 1 and row['saved'] in (1, None)
    counts = {m: rows['DLABase', 'inference', m]['operations'] for m in ('auto', 'reference')}
    assert 0 < counts['auto'] < counts['reference'] / 2
    saved = {model: rows['DLABase', 'train', model]['saved'] for model in ('reference', 'auto')}
    assert 1 < saved['auto'] < saved['reference']
    table = (tmp_path / 'benchmark.md').read_text().splitlines()
    assert len(table) == 2 + 4
    (line,) = (cells for cells in table if 'cifar20 DLABase train' in cells)
    row = rows['DLABase', 'train', 'auto']
    assert f'| {row["ratio"]:.2f} (' in line and f'| {row["saved"]:.2f} |' in line
    assert (tmp_path / 'benchmark.png').stat().st_size > 1000
    assert 'cifar20 DLABase train 2x3x32x32' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'words'),
    [
        ('--attention SE --shape 8x224', "--shape: expected Bx3xHxW, got '8x224'"),
        ('--attention SE --network r51', 'no ResNet-51'),
        ('--attention SE --network vgg16', "expected 'r50' or 'cifar110', got 'vgg16'"),
        ('--attention None', 'invalid choice'),
        ('--shape 1x3x8x8', 'go with --attention'),
        ('--amp bfloat16', 'go with --attention'),
        ('--rounds 0', '--rounds: must be a positive integer, got 0'),
    ],
)
def test_bad_options(tool, capsys, argv, words):
    with pytest.raises(SystemExit) as error:
        tool('benchmark')(argv.split())
    assert error.value.code == 2
    assert words in capsys.readouterr().err
