"""Figures of a table, drawn from the logs of its runs."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdla.files import atomic_write

from .collect import Line, size_of
from .runs import Run, read_scalars
from .tables import Table

PIECES = 20  # of a training, each one point of its curve


def draw(table: Table, lines: list[Line], runs: list[Run], target: Path, root: Path) -> None:
    """Draw accuracy against parameters, and the loss during training, as one SVG file.

    Args:
        table (Table): The table.
        lines (list[Line]): Its rows with their results.
        runs (list[Run]): Its runs; the finished ones are drawn.
        target (Path): The SVG file.
        root (Path): The repository.
    """
    lines = [line for line in lines if line.values]
    figure = Figure(figsize=(10, 4), layout='constrained')
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    metric = table.metrics[0].label
    for i, line in enumerate(lines):
        name, color = line.row.name.removeprefix(f'{table.name}_'), f'C{i}'
        mean, deviation = line.summary(metric)
        million = size_of(table, line.row, root).parameters / 1e6
        left.errorbar(million, mean, deviation, fmt='o', color=color, capsize=4)
        left.annotate(name, (million, mean), xytext=(6, 4), textcoords='offset points')
        finished = [r for r in runs if r.plan.row == line.row and r.plan.seed in line.values]
        curves = [loss_curve(run) for run in finished]
        steps = [mean_of(points) for points in zip(*(steps for steps, _ in curves), strict=False)]
        losses = [mean_of(points) for points in zip(*(loss for _, loss in curves), strict=False)]
        right.plot(steps, losses, color=color, label=name)
    left.set(xlabel='parameters, millions', ylabel=f'{metric} (mean ± deviation over seeds)')
    left.margins(x=0.2)
    right.set(xlabel='iteration', ylabel='training loss (mean over seeds)')
    if lines:
        right.legend()
    figure.suptitle(table.title)
    # letters as text, and the same file from the same logs
    settings = {'svg.fonttype': 'none', 'svg.hashsalt': table.name}
    with atomic_write(target) as part, matplotlib.rc_context(settings):
        figure.savefig(part, format='svg', metadata=dict(Date=None))


def loss_curve(run: Run) -> tuple[list[float], list[float]]:
    """Iterations and losses of a training in at most :data:`PIECES` pieces of its log.

    What a resumed training did again counts once, as it was done last.
    """
    by_step = {}
    for log in run.logs():
        by_step |= {row['step']: row['loss'] for row in read_scalars(log) if 'loss' in row}
    points = sorted(by_step.items())
    length = -(-len(points) // PIECES)
    pieces = [points[i : i + length] for i in range(0, len(points), max(length, 1))]
    means = [[mean_of(column) for column in zip(*piece, strict=True)] for piece in pieces]
    return [step for step, _ in means], [loss for _, loss in means]


def mean_of(values: Sequence[float]) -> float:
    return sum(values) / len(values)
