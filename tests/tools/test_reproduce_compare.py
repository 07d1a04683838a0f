"""Comparison of the rows of a table, with numbers made by hand."""

import json
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from mmdla.errors import InputError
from mmdla.reproduce import collect, compare, figures, records, tables
from mmdla.reproduce.compare import ImageScores, over_images, over_seeds
from mmdla.reproduce.launch import Plan
from mmdla.reproduce.records import Record
from mmdla.reproduce.runs import Run

IMAGES = 6
RECORDS = Path(__file__).parents[2] / 'docs/records'
BOX = [10.0, 10.0, 20.0, 20.0]


def test_over_seeds():
    found = over_seeds({0: 5.0, 1: 7.0, 2: 6.0, 9: 1.0}, {0: 4.0, 1: 4.0, 2: 7.0, 8: 2.0})
    assert found.seeds == (0, 1, 2) and found.higher == 2
    assert found.mean == pytest.approx(1)  # of 1, 3, -1
    assert found.deviation == pytest.approx(2)
    one = over_seeds({3: 2.0}, {3: 2.5})
    assert (one.mean, one.deviation, one.higher) == (-0.5, None, 0)
    assert over_seeds({0: 1.0}, {1: 1.0}) is None


@pytest.fixture
def annotations(tmp_path) -> Path:
    """Images with an object each."""
    content = dict(
        images=[dict(id=10 * i, width=64, height=64, file_name=f'{i}.png') for i in range(IMAGES)],
        categories=[dict(id=1, name='cell')],
        annotations=[
            dict(id=i + 1, image_id=10 * i, category_id=1, bbox=BOX, area=400, iscrowd=0)
            for i in range(IMAGES)
        ],
    )
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def scores(annotations, tmp_path):
    """Of a detector that finds the objects of some images, and nothing else."""

    def make(*images: int) -> ImageScores:
        found = [dict(image_id=10 * i, category_id=1, bbox=BOX, score=0.9) for i in images]
        path = tmp_path / f'{images}.bbox.json'
        path.write_text(json.dumps(found))
        return ImageScores(annotations, path, 'bbox')

    return make


def recall_points(found: int, of: int) -> float:
    """AP of a detector without a false box: the share of COCO's 101 recalls that it reaches."""
    return 100 * sum(r / 100 <= found / of + 1e-9 for r in range(101)) / 101


def test_ap_of_a_sample(scores):
    half = scores(0, 1, 2)
    assert half.ap(range(IMAGES)) == pytest.approx(recall_points(3, 6))
    assert half.ap([0, 0, 2]) == pytest.approx(100)
    assert half.ap([3, 4, 4]) == 0
    assert half.ap([0, 0, 0, 5]) == pytest.approx(recall_points(3, 4))  # as often as it is drawn
    assert scores().ap([0, 1]) == 0


def test_bootstrap(scores, monkeypatch):
    monkeypatch.setattr(compare, 'SAMPLES', 200)
    none, half, every = scores(), scores(0, 1, 2), scores(*range(IMAGES))
    of_half = half.ap(range(IMAGES))
    none, half, every = none.resampled, half.resampled, every.resampled
    assert over_images([half], [half]) == (0, 0)
    assert over_images([every, every], [none, none]) == pytest.approx((100, 100))
    low, high = over_images([every], [half])
    assert 0 <= low < 100 - of_half < high <= 100
    assert over_images([half], [every]) == pytest.approx((-high, -low))
    # with one seed that finds all and one that finds half, the difference is half as large
    both = over_images([every, half], [half, half])
    assert both == pytest.approx((low / 2, high / 2))


def test_missing_predictions(annotations, tmp_path):
    with pytest.raises(InputError, match=r'val\.bbox\.json: no predictions'):
        ImageScores(annotations, tmp_path / 'val.bbox.json', 'bbox')


VALUES = {'plain': {0: 10.0, 1: 12.0}, 'dla_l': {0: 13.0, 1: 12.0}}


def record_with(value: float, **fields) -> Record:
    blank = Record('', {'top-1, %': value}, steps=[1, 2], losses=[2, 1], seconds=0.5)
    return replace(blank, **fields)


@pytest.fixture
def lines(repo):
    table = tables.read_table('digits', repo)
    return table, [
        collect.Line(row, {s: record_with(v) for s, v in VALUES[row.name].items()})
        for row in table.rows
        if row.name in VALUES
    ]


def test_differences_to_the_first_row(lines, repo, tmp_path):
    table, of_rows = lines
    text = collect.write(table, of_rows, tmp_path, repo)
    assert '| dla_l | top-1, % | +1.50 ± 2.12 | 1 of 2 seeds |  |' in text
    assert 'Difference to plain' in text
    (difference,) = json.loads((tmp_path / 'results.json').read_text())['differences'].values()
    assert difference['top-1, %']['mean'] == pytest.approx(1.5)
    # without the first row there is nothing to compare with
    assert 'Difference' not in collect.write(table, of_rows[1:], tmp_path, repo)


def test_time_over_that_of_the_first_row(lines, repo, tmp_path):
    table, of_rows = lines
    for seed, seconds in ((0, 0.75), (1, 1.0)):
        of_rows[1].records[seed] = record_with(1.0, seconds=seconds)
    text = collect.markdown(table, of_rows, repo)
    (title,) = (row for row in text.splitlines() if 'GMACs' in row)
    assert title.split(' | ')[-2] == 'time / plain'
    assert [row.split(' | ')[-2] for row in text.splitlines() if 'this run' in row] == [
        '1.00',
        '1.75',  # the median of 1.5 and 2
    ]
    assert '| 1.75 |' not in collect.markdown(table, of_rows[1:], repo)


def test_interval_over_images(lines, repo):
    """Only where every run of both rows has AP on the samples."""
    table, of_rows = lines
    plain, ours = of_rows
    for line, shift in ((plain, 0.0), (ours, 2.0)):
        for seed, value in VALUES[line.row.name].items():
            samples = {'top-1, %': [shift + i for i in range(101)]}
            line.records[seed] = record_with(value, resampled=samples)
    (found,) = collect.compare(table, of_rows).values()
    assert found['top-1, %'].interval == pytest.approx((2, 2))
    plain.records[1] = record_with(12.0)
    (found,) = collect.compare(table, of_rows).values()
    assert found['top-1, %'].interval is None


def log(path: Path, losses: dict[int, float]) -> Path:
    rows = [dict(step=step, loss=loss, time=step / 10) for step, loss in losses.items()]
    rows.append({'step': 1, 'accuracy/top1': 3.0})
    path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return path


class LoggedRun:
    """The logs of a run."""

    def __init__(self, *logs: Path) -> None:
        self._logs = logs

    def logs(self) -> list[Path]:
        return list(self._logs)


def curve(*logs: Path) -> tuple[list[float], list[float]]:
    return records.loss_curve(records.training_rows(LoggedRun(*logs)))


def test_loss_curve_of_a_resumed_run(tmp_path):
    first = log(tmp_path / 'a', {10: 5.0, 20: 4.0, 30: 9.0})
    second = log(tmp_path / 'b', {30: 3.0, 40: 2.0})
    assert curve(first, second) == ([10, 20, 30, 40], [5, 4, 3, 2])
    steps, losses = curve(log(tmp_path / 'c', {step: step % 2 for step in range(400)}))
    assert len(steps) == records.PIECES and steps[0] == statistics.mean(range(20))
    assert losses == [0.5] * records.PIECES
    assert curve(log(tmp_path / 'd', {})) == ([], [])


def test_figure(lines, repo, tmp_path):
    table, of_rows = lines
    target = tmp_path / 'results.svg'
    figures.draw(table, of_rows, target, repo)
    text = target.read_text()
    assert text.count('>plain<') == text.count('>dla_l<') == 2  # beside the point, in the legend
    figures.draw(table, of_rows, target, repo)
    assert target.read_text() == text


def test_records_are_read_as_they_were_written(tmp_path):
    path = tmp_path / 'records.json'
    samples = {'box AP': [1.25, 3.5]}
    kept = {'dla_l': {0: record_with(1.0), 2: record_with(2.0, resampled=samples)}, 'plain': {}}
    records.write_records(kept, path)
    del kept['plain']  # nothing finished
    assert records.read_records(path) == kept
    assert path.read_text().count('\n') == 6  # a line for every run


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('{"dla', 'no records of runs'),
        ('[1]', 'expected rows with seeds'),
        ('{"dla_l": 3}', 'expected rows with seeds'),
        ('{"dla_l": {"0": {"metrics": {}}}}', 'dla_l, 0: no record of a run, expected losses'),
        ('{"dla_l": {"first": {}}}', "a seed is a whole number, got 'first'"),
    ],
)
def test_damaged_records(tmp_path, text, words):
    path = tmp_path / 'records.json'
    path.write_text(text)
    with pytest.raises(InputError, match=words) as error:
        records.read_records(path)
    assert str(path) in str(error.value)
    with pytest.raises(InputError, match='no records of runs'):
        records.read_records(tmp_path / 'missing.json')


@pytest.mark.parametrize('path', sorted(RECORDS.glob('*.json')), ids=lambda p: p.stem)
def test_records_of_the_documents_are_of_these_configs(path, repo):
    """docs/results.md quotes them: who changes a recipe runs its table again."""
    table = tables.read_table(path.stem, repo)
    kept = records.read_records(path)
    runs = [
        Run(table, Plan(row, seed, Path(row.name), ()), repo)
        for row in table.rows
        for seed in kept.get(row.name, ())
    ]
    assert records.made_elsewhere(runs, path) == kept
    lines = collect.collect(runs, path)
    text = (repo / 'docs/results.md').read_text()
    for line in lines:
        mean, deviation = line.summary(table.metrics[0].label)
        assert f'| {mean:.2f} ± {deviation:.2f} |' in text
