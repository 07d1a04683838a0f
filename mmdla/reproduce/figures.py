"""Figures of a table, drawn from the logs of its runs."""

import statistics
from pathlib import Path

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmdla.files import atomic_write

from .collect import Line, size_of
from .tables import Table


def draw(table: Table, lines: list[Line], target: Path, root: Path) -> None:
    """Draw accuracy against parameters, and the loss during training, as one SVG file.

    Args:
        table (Table): The table.
        lines (list[Line]): Its rows with their results.
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
        records = line.records.values()
        steps, losses = (
            [statistics.mean(points) for points in zip(*curves, strict=False)]
            for curves in ([r.steps for r in records], [r.losses for r in records])
        )
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
