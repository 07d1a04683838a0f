"""Finished runs as one table, beside what others published."""

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from mmdla.analysis.complexity import Complexity, measure
from mmdla.files import atomic_write
from mmdla.version import __version__

from .compare import Difference, over_images, over_seeds
from .published import neighbours
from .records import Record, records_of, write_records
from .runs import Run
from .tables import Row, Table, row_config

RECORDS = 'records.json'


@dataclass
class Line:
    """The finished runs of a row.

    Args:
        row (Row): The row.
        records (dict[int, Record]): What they came to, by seed.
        unfinished (list[int]): Seeds whose runs are not finished, or were not begun.
    """

    row: Row
    records: dict[int, Record] = field(default_factory=dict)
    unfinished: list[int] = field(default_factory=list)

    @property
    def values(self) -> dict[int, dict[str, float]]:
        """Metrics by label, by seed."""
        return {seed: record.metrics for seed, record in self.records.items()}

    def summary(self, label: str) -> tuple[float, float | None]:
        """Mean, and standard deviation of the sample with two seeds or more."""
        values = [of_seed[label] for of_seed in self.values.values()]
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def collect(runs: Iterable[Run], kept: Path | None = None) -> list[Line]:
    """Read what the runs came to.

    Args:
        runs (Iterable[Run]): The runs.
        kept (Path, optional): Records of runs that were made elsewhere.

    Raises:
        InputError: A log is damaged, or is that of another training.
    """
    runs = list(runs)
    records = records_of(runs, kept)
    lines: dict[str, Line] = {}
    for run in runs:
        of_row = records.get(run.plan.row.name, {})
        line = lines.setdefault(run.plan.row.name, Line(run.plan.row, of_row))
        if run.plan.seed not in of_row:
            line.unfinished.append(run.plan.seed)
    return list(lines.values())


def size_of(table: Table, row: Row, root: Path) -> Complexity:
    """Parameters and multiply-adds of a row."""
    return measure(row_config(row, root), table.size)


def compare(table: Table, lines: list[Line]) -> dict[str, dict[str, Difference]]:
    """Differences of every row to the table's first one, by row, by metric.

    With an interval over images where AP on the bootstrap's samples is known.
    """
    first = _first(table, lines)
    result: dict[str, dict[str, Difference]] = {}
    for line in lines if first else ():
        for metric in table.metrics if line is not first else ():
            ours, others = (
                {seed: values[metric.label] for seed, values in of.values.items()}
                for of in (line, first)
            )
            difference = over_seeds(ours, others)
            if difference is None:
                continue
            samples = [
                [of.records[seed].resampled.get(metric.label) for seed in difference.seeds]
                for of in (line, first)
            ]
            if all(all(of_row) for of_row in samples):
                difference = replace(difference, interval=over_images(*samples))
            result.setdefault(line.row.name, {})[metric.label] = difference
    return result


def differences_markdown(table: Table, found: dict[str, dict[str, Difference]]) -> str:
    """The second table for people: what the rows have more than the first one."""
    if not found:
        return ''
    titles = ['model', 'metric', 'difference', 'ahead in', '95 % over images']
    rows = [titles, ['---'] * len(titles)]
    for name, by_metric in found.items():
        for label, d in by_metric.items():
            spread = '' if d.deviation is None else f' ± {d.deviation:.2f}'
            images = '' if d.interval is None else f'{d.interval[0]:+.2f} to {d.interval[1]:+.2f}'
            ahead = f'{d.higher} of {len(d.seeds)} seeds'
            rows.append([name, label, f'{d.mean:+.2f}{spread}', ahead, images])
    text = '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
    return f'\nDifference to {table.rows[0].name}, seed by seed:\n\n{text}\n'


def markdown(table: Table, lines: list[Line], root: Path, options: tuple[str, ...] = ()) -> str:
    """The table for people: ours, then the published ones with their source."""
    labels = [metric.label for metric in table.metrics]
    first = _first(table, lines)
    beside = f'time / {table.rows[0].name}'
    titles = ['model', *labels, 'seeds', 'parameters, M', 'GMACs', beside, 'source']
    rows = [titles, ['---'] * len(titles)]
    for line in lines:
        if line.values:
            seeds = ', '.join(map(str, line.values))
            size = size_of(table, line.row, root)
            counts = [f'{size.parameters / 1e6:.2f}', f'{size.macs / 1e9:.3g}']
            cells = [_cell(*line.summary(label)) for label in labels]
            time = _relative_time(line, first)
            rows.append([line.row.name, *cells, seeds, *counts, time, 'this run'])
    for other in neighbours(table.name):
        cells = [f'{other.values[label]:.2f}' if label in other.values else '' for label in labels]
        rows.append([other.name, *cells, '', '', '', '', f'published: {other.source}'])
    text = '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
    missing = [
        f'{line.row.name} (seeds {_list(line.unfinished)})' for line in lines if line.unfinished
    ]
    if missing:
        text += '\n\nNot finished: ' + ', '.join(missing) + '.'
    if options:
        text += '\n\nWith other settings than the configs: ' + ', '.join(options) + '.'
    return f'{table.title}\n\n{text}\n'


def _first(table: Table, lines: list[Line]) -> Line | None:
    """The row that the others are compared with, if a run of it is finished."""
    return next((line for line in lines if line.row == table.rows[0] and line.values), None)


def _relative_time(line: Line, first: Line | None) -> str:
    """Median over seeds of an iteration's time over that of the first row with the same seed."""
    ratios = [
        record.seconds / first.records[seed].seconds
        for seed, record in (line.records.items() if first else ())
        if seed in first.records and first.records[seed].seconds
    ]
    return f'{statistics.median(ratios):.2f}' if ratios else ''


def _cell(mean: float, deviation: float | None) -> str:
    return f'{mean:.2f}' if deviation is None else f'{mean:.2f} ± {deviation:.2f}'


def _list(seeds: list[int]) -> str:
    return ', '.join(map(str, seeds))


def as_json(
    table: Table,
    lines: list[Line],
    options: tuple[str, ...] = (),
    found: dict[str, dict[str, Difference]] | None = None,
) -> str:
    """The table for programs."""
    rows = []
    for line in lines:
        summary = {}
        for metric in table.metrics if line.values else ():
            mean, deviation = line.summary(metric.label)
            summary[metric.label] = dict(mean=mean, deviation=deviation)
        rows.append(
            dict(
                model=line.row.name,
                config=line.row.config,
                options=list(line.row.options),
                summary=summary,
                seeds={str(seed): values for seed, values in line.values.items()},
                unfinished=line.unfinished,
            )
        )
    content = dict(
        table=table.name,
        mmdla=__version__,
        torch=torch.__version__,
        options=list(options),
        rows=rows,
        differences={
            name: {label: asdict(d) for label, d in by_metric.items()}
            for name, by_metric in (found or {}).items()
        },
        published=[asdict(other) for other in neighbours(table.name)],
    )
    return json.dumps(content, indent=1) + '\n'


def write(
    table: Table, lines: list[Line], folder: Path, root: Path, options: tuple[str, ...] = ()
) -> str:
    """Write ``results.md``, ``results.json`` and the records into ``folder``; return the first."""
    found = compare(table, lines)
    text = markdown(table, lines, root, options) + differences_markdown(table, found)
    folder.mkdir(parents=True, exist_ok=True)
    files = {'results.md': text, 'results.json': as_json(table, lines, options, found)}
    for name, content in files.items():
        with atomic_write(folder / name) as part:
            part.write_text(content)
    write_records({line.row.name: line.records for line in lines}, folder / RECORDS)
    return text
