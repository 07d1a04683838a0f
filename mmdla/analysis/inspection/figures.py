"""Draw what was recorded, one panel for every stage, without Matplotlib's global state."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .catalogue import FigureKind
from .records import StageRecord, quantiles

PANEL = 3.8, 3.0  # inches
DPI = 160
COLORS = ('#1f6fb4', '#d1603d', '#4a9e5c', '#8a63b8')
WRITE_NUMBERS = 6  # blocks, up to which the cells of a matrix have room for their number


def draw(
    kind: FigureKind,
    stages: Sequence[StageRecord],
    comparable: Sequence[StageRecord] | None = None,
) -> Figure:
    """Panels side by side for the stages, all of which must have what the figure shows.

    Args:
        kind (FigureKind): What is drawn.
        stages (Sequence[StageRecord]): One panel for each.
        comparable (Sequence[StageRecord], optional): The scale has room for the values of these,
            so that their panels can be compared. Default: ``stages``.
    """
    width, height = PANEL
    figure = Figure(figsize=(width * len(stages), height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    limits = kind.limits or _span(kind, comparable or stages)
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        panel = _matrix if kind.draw == 'matrix' else _spread
        panel(axes, kind, stage, limits)
        axes.set_title(f'{stage.stage} · {stage.kind}', fontsize=10)
    return figure


def draw_key() -> Figure:
    """Return what the line and the bars of a spread mean."""
    figure = Figure(figsize=(4.6, 2.1), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    five = np.array([[0.1, 0.3], [0.35, 0.45], [0.5, 0.55], [0.6, 0.7], [0.9, 0.85]])
    _bars(axes, np.array([1, 2]), five, 0.5, COLORS[0], None)
    texts = ('5 % are below', 'a quarter is below', 'median', 'a quarter is above', '5 % are above')
    for text, y, level in zip(texts, five[:, 1], (0.14, 0.36, 0.55, 0.74, 0.94), strict=True):
        line = dict(arrowstyle='-', color='0.5', linewidth=0.8)
        axes.annotate(text, (2.27, y), (2.7, level), va='center', fontsize=10, arrowprops=line)
    axes.set(xlim=(0.5, 4.4), ylim=(0, 1.05), xticks=(1, 2), yticks=(), xlabel='block')
    axes.xaxis.set_label_coords(0.26, -0.13)
    axes.set_ylabel('values')
    axes.spines[['top', 'right']].set_visible(False)
    return figure


def in_words(kind: FigureKind, stage: StageRecord) -> str:
    """Return what a panel shows, for those who cannot see it."""
    if kind.draw == 'matrix':
        (name,) = kind.series
        last = _listed(stage.matrix(name)[-1].tolist())
        return f'{kind.title}, {stage.stage}: the last row, from block 1 on, is {last}'
    lines = [
        f'{label} {_listed(quantiles(stage.per_block(name))[2].tolist())}'
        for name, label in kind.series.items()
        if name in stage.quantities
    ]
    return f'{kind.title}, {stage.stage}: medians from block 1 on, ' + '; '.join(lines)


def _listed(values: Sequence[float]) -> str:
    return ', '.join(f'{value:.2f}' for value in values)


def _span(kind: FigureKind, stages: Sequence[StageRecord]) -> tuple[float, float]:
    """From the lowest to the highest value that is drawn, with a margin."""
    drawn = [
        quantiles(stage.per_block(name)).numpy()  # (5, L)
        for stage in stages
        for name in kind.series
        if name in stage.quantities
    ]
    low = min(values.min() for values in drawn)
    high = max(values.max() for values in drawn)
    margin = 0.05 * (high - low) or 0.1
    return low - margin, high + margin


def to_array(figure: Figure) -> np.ndarray:
    """RGB pixels, shape (H, W, 3), uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', metadata={'Software': None})
    return buffer.getvalue()


def _matrix(axes, kind: FigureKind, stage: StageRecord, limits: tuple[float, float]) -> None:
    (name,) = kind.series
    values = stage.matrix(name).numpy()  # (L, L)
    blocks = len(values)
    shown = np.ma.masked_where(np.triu(np.ones_like(values), 1) > 0, values)
    ends = (0.5, blocks + 0.5, blocks + 0.5, 0.5)
    # the square root keeps small weights of deep stages apart
    norm = PowerNorm(0.5, *limits)
    image = axes.imshow(shown, norm=norm, cmap='viridis', extent=ends, aspect='equal')
    axes.figure.colorbar(image, ax=axes, label=kind.axis, ticks=(0, 0.05, 0.2, 0.5, 1))
    if blocks <= WRITE_NUMBERS:
        for row in range(blocks):
            for column in range(row + 1):
                value = values[row, column]
                color = 'black' if norm(value) > 0.6 else 'white'
                text = f'{value:.2f}'
                axes.text(column + 1, row + 1, text, color=color, ha='center', va='center')
    axes.set(xlabel='attended block', ylabel='attending block')
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _spread(axes, kind: FigureKind, stage: StageRecord, limits: tuple[float, float]) -> None:
    series = {n: label for n, label in kind.series.items() if n in stage.quantities}
    width = 0.7 / len(series)
    axes.use_sticky_edges = False  # of the bars, which else touch the frame
    for i, (name, label) in enumerate(series.items()):
        five = quantiles(stage.per_block(name)).numpy()  # (5, L)
        x = np.arange(1, five.shape[1] + 1) + (i - (len(series) - 1) / 2) * width
        _bars(axes, x, five, width, COLORS[i], label)
    margin = 0.03 if kind.limits else 0
    axes.set_ylim(limits[0] - margin, limits[1] + margin)
    axes.set(xlabel='block', ylabel=kind.axis, xlim=(0.4, stage.num_blocks + 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.grid(axis='y', alpha=0.3)
    if len(series) > 1:
        below = dict(loc='upper center', bbox_to_anchor=(0.5, -0.2))
        axes.legend(fontsize=9, ncols=min(len(series), 2), frameon=False, **below)


def _bars(axes, x: np.ndarray, five: np.ndarray, width: float, color: str, label) -> None:
    """Quantiles (5, L) at the places ``x``: the tails pale, the middle half dark, the median."""
    low, first, median, third, high = five
    axes.bar(x, high - low, width * 0.5, low, color=color, alpha=0.25)
    axes.bar(x, third - first, width * 0.8, first, color=color, alpha=0.55)
    axes.plot(x, median, 'o-', color=color, label=label, linewidth=1.2, markersize=4)
