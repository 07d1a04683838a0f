"""Finished runs as one table, beside what others published."""

import json
import os
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path

import torch

from mmdla.analysis.complexity import Complexity, measure
from mmdla.version import __version__

from .compare import Difference, ImageScores, over_images, over_seeds
from .launch import PREDICTIONS
from .published import neighbours
from .runs import Run
from .tables import Row, Table, row_config

# metrics of which AP on a sample of the images is known: the name of the predictions' file
IOU_TYPES = {'coco/bbox_mAP': 'bbox', 'coco/segm_mAP': 'segm'}


@dataclass
class Line:
    """The finished runs of a row.

    Args:
        row (Row): The row.
        values (dict[int, dict[str, float]]): Metrics by label, by seed.
        folders (dict[int, Path]): Their folders, by seed.
        unfinished (list[int]): Seeds whose runs are not finished, or were not begun.
    """

    row: Row
    values: dict[int, dict[str, float]] = field(default_factory=dict)
    folders: dict[int, Path] = field(default_factory=dict)
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
            line.folders[run.plan.seed] = run.folder
    return list(lines.values())


def size_of(table: Table, row: Row, root: Path) -> Complexity:
    """Parameters and multiply-adds of a row."""
    return measure(row_config(row, root), table.size)


def compare(table: Table, lines: list[Line], root: Path) -> dict[str, dict[str, Difference]]:
    """Differences of every row to the table's first one, by row, by metric.

    Of metrics of COCO's AP with an interval over images, where the predictions were kept.
    """
    first = next((line for line in lines if line.row == table.rows[0] and line.values), None)

    @cache
    def scores_of(name: str, seed: int, kind: str) -> ImageScores:
        line = by_name[name]
        truth = root / row_config(line.row, root).val_evaluator.ann_file
        return ImageScores(truth, line.folders[seed] / f'{PREDICTIONS}.{kind}.json', kind)

    by_name = {line.row.name: line for line in lines}
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
            if line.row.keeps_predictions and metric.key in IOU_TYPES:
                kind = IOU_TYPES[metric.key]
                scores = [
                    [scores_of(of.row.name, s, kind) for s in difference.seeds]
                    for of in (line, first)
                ]
                difference = replace(difference, interval=over_images(*scores))
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
    titles = ['model', *labels, 'seeds', 'parameters, M', 'GMACs', 'source']
    rows = [titles, ['---'] * len(titles)]
    for line in lines:
        if line.values:
            seeds = ', '.join(map(str, line.values))
            size = size_of(table, line.row, root)
            counts = [f'{size.parameters / 1e6:.2f}', f'{size.macs / 1e9:.3g}']
            cells = [_cell(*line.summary(label)) for label in labels]
            rows.append([line.row.name, *cells, seeds, *counts, 'this run'])
    for other in neighbours(table.name):
        cells = [f'{other.values[label]:.2f}' if label in other.values else '' for label in labels]
        rows.append([other.name, *cells, '', '', '', f'published: {other.source}'])
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
    """Write ``results.md`` and ``results.json`` into ``folder``; return the former."""
    found = compare(table, lines, root)
    text = markdown(table, lines, root, options) + differences_markdown(table, found)
    folder.mkdir(parents=True, exist_ok=True)
    files = {'results.md': text, 'results.json': as_json(table, lines, options, found)}
    for name, content in files.items():
        part = folder / f'{name}.part'
        part.write_text(content)
        os.replace(part, folder / name)
    return text
