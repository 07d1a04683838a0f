"""What tables, figures and comparisons need of a finished run, small enough to be kept."""

import hashlib
import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from mmdla.errors import InputError
from mmdla.files import atomic_write

from .compare import ImageScores
from .launch import PREDICTIONS
from .runs import Run, decisive, read_scalars
from .tables import row_config

PIECES = 20  # of a training, each one point of its curve
# metrics of which AP on a sample of the images is known: the name of the predictions' file
IOU_TYPES = {'coco/bbox_mAP': 'bbox', 'coco/segm_mAP': 'segm'}
NAME = 'record.json'


@dataclass(frozen=True)
class Record:
    """A finished run.

    Args:
        settings (str): Digest of what decides its result (:func:`mmdla.reproduce.runs.decisive`).
        metrics (dict[str, float]): After the last epoch, by label, in the table's units.
        steps (list[float]): Iterations of the points of its training loss.
        losses (list[float]): The loss there, each the mean of a piece of the training.
        seconds (float): Median of an iteration's time, on whatever machine that was.
        resampled (dict[str, list[float]]): By metric, AP on the bootstrap's samples of the images
            (:attr:`ImageScores.resampled`).
    """

    settings: str
    metrics: dict[str, float]
    steps: list[float]
    losses: list[float]
    seconds: float
    resampled: dict[str, list[float]] = field(default_factory=dict)


def digest(run: Run) -> str:
    """Digest of what decides the result of a run."""
    text = json.dumps(decisive(run.config()), sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def record(run: Run) -> Record | None:
    """Read the logs and predictions of a run; None of an unfinished one.

    The record is kept in the run's folder, since the bootstrap takes its time.

    Raises:
        InputError: A log is damaged, or is that of another training.
    """
    metrics = run.result()
    if metrics is None:
        return None
    kept = run.folder / NAME
    newest = max(log.stat().st_mtime for log in run.logs())
    if kept.exists() and kept.stat().st_mtime > newest:
        try:
            found = parse(json.loads(kept.read_text()), str(kept))
        except (InputError, ValueError):
            found = None  # damaged: made anew
        if found and (found.settings, found.metrics) == (digest(run), metrics):
            return found
    rows = training_rows(run)
    steps, losses = loss_curve(rows)
    times = [row['time'] for row in rows if 'time' in row]
    seconds = statistics.median(times) if times else 0.0
    made = Record(digest(run), metrics, steps, losses, round(seconds, 4), resampled(run))
    with atomic_write(kept) as part:
        part.write_text(json.dumps(asdict(made)))
    return made


def resampled(run: Run) -> dict[str, list[float]]:
    """AP on the bootstrap's samples, by label of the metric, where the predictions were kept."""
    found = {}
    for metric in run.table.metrics if run.plan.row.keeps_predictions else ():
        if metric.key in IOU_TYPES:
            kind = IOU_TYPES[metric.key]
            truth = run.root / row_config(run.plan.row, run.root).val_evaluator.ann_file
            scores = ImageScores(truth, run.folder / f'{PREDICTIONS}.{kind}.json', kind)
            found[metric.label] = [round(float(ap), 4) for ap in scores.resampled]
    return found


def training_rows(run: Run) -> list[dict]:
    """What was logged in training, by iteration.

    What a resumed training did again counts once, as it was done last.
    """
    by_step = {}
    for log in run.logs():
        by_step |= {row['step']: row for row in read_scalars(log) if 'loss' in row}
    return [row for _, row in sorted(by_step.items())]


def loss_curve(rows: list[dict]) -> tuple[list[float], list[float]]:
    """Iterations and losses of a training in at most :data:`PIECES` pieces of its log."""
    length = max(-(-len(rows) // PIECES), 1)
    pieces = [rows[i : i + length] for i in range(0, len(rows), length)]
    steps, losses = (
        [round(statistics.mean(row[key] for row in piece), 4) for piece in pieces]
        for key in ('step', 'loss')
    )
    return steps, losses


def read_records(path: Path) -> dict[str, dict[int, Record]]:
    """Records of a table by row, by seed.

    Raises:
        InputError: The file cannot be read, or is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InputError(f'{path}: no records of runs ({error})') from error
    if not isinstance(content, dict) or not all(isinstance(of, dict) for of in content.values()):
        raise InputError(f'{path}: no records of runs, expected rows with seeds')
    for name, of_row in content.items():
        if odd := next((seed for seed in of_row if not seed.isdecimal()), None):
            raise InputError(f'{path}, {name}: a seed is a whole number, got {odd!r}')
    return {
        name: {int(seed): parse(entry, f'{path}, {name}, {seed}') for seed, entry in of.items()}
        for name, of in content.items()
    }


def parse(entry: Any, where: str) -> Record:
    """Make a record of what a file holds.

    Raises:
        InputError: Something is missing.
    """
    names = {f.name for f in fields(Record)}
    if not isinstance(entry, dict) or entry.keys() != names:
        raise InputError(f'{where}: no record of a run, expected {", ".join(sorted(names))}')
    return Record(**entry)


def write_records(records: dict[str, dict[int, Record]], path: Path) -> None:
    """Write a file for :func:`read_records`, a line for every run."""
    rows = []
    for name, of_row in records.items():
        if not of_row:
            continue
        runs = [f'  "{seed}": {json.dumps(asdict(of_row[seed]))}' for seed in sorted(of_row)]
        rows.append(f' {json.dumps(name)}: {{\n' + ',\n'.join(runs) + '\n }')
    with atomic_write(path) as part:
        part.write_text('{\n' + ',\n'.join(rows) + '\n}\n')


def made_elsewhere(runs: Iterable[Run], path: Path) -> dict[str, dict[int, Record]]:
    """Those of a file's records that are of these runs.

    Raises:
        InputError: The file cannot be read, or a record is of another training.
    """
    records = read_records(path)
    found: dict[str, dict[int, Record]] = {}
    for run in runs:
        name, seed = run.plan.row.name, run.plan.seed
        if of_run := records.get(name, {}).get(seed):
            if of_run.settings != digest(run):
                raise InputError(
                    f'{path}: {name}, seed {seed}, is of another training than the one asked for: '
                    'its settings differ from those of the config and --cfg-options'
                )
            found.setdefault(name, {})[seed] = of_run
    return found


def records_of(runs: list[Run], kept: Path | None = None) -> dict[str, dict[int, Record]]:
    """Records of the finished runs, by row, by seed.

    Args:
        runs (list[Run]): The runs.
        kept (Path, optional): Records of runs that were made elsewhere; a run that is here counts.

    Raises:
        InputError: A file is damaged, or is that of another training.
    """
    found = made_elsewhere(runs, kept) if kept else {}
    for run in runs:
        if here := record(run):
            found.setdefault(run.plan.row.name, {})[run.plan.seed] = here
    return {name: dict(sorted(of_row.items())) for name, of_row in found.items()}
