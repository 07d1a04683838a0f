"""Finished runs as one table, beside what others published."""

import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from mmdla.analysis.complexity import measure
from mmdla.version import __version__

from .published import neighbours
from .runs import Run
from .tables import Row, Table, row_config


@dataclass
class Line:
    """The finished runs of a row.

    Args:
        row (Row): The row.
        values (dict[int, dict[str, float]]): Metrics by label, by seed.
        unfinished (list[int]): Seeds whose runs are not finished, or were not begun.
    """

    row: Row
    values: dict[int, dict[str, float]] = field(default_factory=dict)
    unfinished: list[int] = field(default_factory=list)

    def summary(self, label: str) -> tuple[float, float | None]:
        """Mean, and standard deviation of the sample with two seeds or more."""
        values = [of_seed[label] for of_seed in self.values.values()]
        return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def collect(runs: Iterable[Run]) -> list[Line]:
    """Read the logs of the runs.

    Raises:
        InputError: A log is damaged, or is that of another training.
    """
    lines: dict[str, Line] = {}
    for run in runs:
        line = lines.setdefault(run.plan.row.name, Line(run.plan.row))
        result = run.result()
        if result is None:
            line.unfinished.append(run.plan.seed)
        else:
            line.values[run.plan.seed] = result
    return list(lines.values())


def markdown(table: Table, lines: list[Line], root: Path, options: tuple[str, ...] = ()) -> str:
    """The table for people: ours, then the published ones with their source."""
    labels = [metric.label for metric in table.metrics]
    titles = ['model', *labels, 'seeds', 'parameters, M', 'source']
    rows = [titles, ['---'] * len(titles)]
    for line in lines:
        if line.values:
            seeds = ', '.join(map(str, line.values))
            million = f'{measure(row_config(line.row, root), table.size).parameters / 1e6:.2f}'
            cells = [_cell(*line.summary(label)) for label in labels]
            rows.append([line.row.name, *cells, seeds, million, 'this run'])
    for other in neighbours(table.name):
        cells = [f'{other.values[label]:.2f}' if label in other.values else '' for label in labels]
        rows.append([other.name, *cells, '', '', f'published: {other.source}'])
    text = '\n'.join('| ' + ' | '.join(row) + ' |' for row in rows)
    missing = [
        f'{line.row.name} (seeds {_list(line.unfinished)})' for line in lines if line.unfinished
    ]
    if missing:
        text += '\n\nNot finished: ' + ', '.join(missing) + '.'
    if options:
        text += '\n\nWith other settings than the configs: ' + ', '.join(options) + '.'
    return f'{table.title}\n\n{text}\n'


def _cell(mean: float, deviation: float | None) -> str:
    return f'{mean:.2f}' if deviation is None else f'{mean:.2f} ± {deviation:.2f}'


def _list(seeds: list[int]) -> str:
    return ', '.join(map(str, seeds))


def as_json(table: Table, lines: list[Line], options: tuple[str, ...] = ()) -> str:
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
        published=[asdict(other) for other in neighbours(table.name)],
    )
    return json.dumps(content, indent=1) + '\n'


def write(
    table: Table, lines: list[Line], folder: Path, root: Path, options: tuple[str, ...] = ()
) -> str:
    """Write ``results.md`` and ``results.json`` into ``folder``; return the former."""
    text = markdown(table, lines, root, options)
    folder.mkdir(parents=True, exist_ok=True)
    files = {'results.md': text, 'results.json': as_json(table, lines, options)}
    for name, content in files.items():
        part = folder / f'{name}.part'
        part.write_text(content)
        os.replace(part, folder / name)
    return text
