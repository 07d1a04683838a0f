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


def draw(kind: FigureKind, stages: Sequence[StageRecord]) -> Figure:
    """Panels side by side for the stages, all of which must have what the figure shows."""
    width, height = PANEL
    figure = Figure(figsize=(width * len(stages), height), dpi=DPI, layout='constrained')
    FigureCanvasAgg(figure)
    for axes, stage in zip(figure.subplots(1, len(stages), squeeze=False)[0], stages, strict=True):
        panel = _matrix if kind.draw == 'matrix' else _spread
        panel(axes, kind, stage)
        axes.set_title(f'{stage.stage} · {stage.kind}', fontsize=10)
    return figure


def to_array(figure: Figure) -> np.ndarray:
    """RGB pixels, shape (H, W, 3), uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def to_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', metadata={'Software': None})
    return buffer.getvalue()


def _matrix(axes, kind: FigureKind, stage: StageRecord) -> None:
    (name,) = kind.series
    values = stage.matrix(name).numpy()  # (L, L)
    blocks = len(values)
    shown = np.ma.masked_where(np.triu(np.ones_like(values), 1) > 0, values)
    ends = (0.5, blocks + 0.5, blocks + 0.5, 0.5)
    # the square root keeps small weights of deep stages apart
    norm = PowerNorm(0.5, *kind.limits)
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


def _spread(axes, kind: FigureKind, stage: StageRecord) -> None:
    series = {n: label for n, label in kind.series.items() if n in stage.quantities}
    width = 0.7 / len(series)
    axes.use_sticky_edges = False  # of the bars, which else touch the frame
    for i, (name, label) in enumerate(series.items()):
        low, first, median, third, high = quantiles(stage.per_block(name)).numpy()  # 5 x (L,)
        x = np.arange(1, len(median) + 1) + (i - (len(series) - 1) / 2) * width
        color = COLORS[i]
        axes.bar(x, high - low, width * 0.5, low, color=color, alpha=0.25)
        axes.bar(x, third - first, width * 0.8, first, color=color, alpha=0.55)
        axes.plot(x, median, 'o-', color=color, label=label, linewidth=1.2, markersize=4)
    if kind.limits:
        low, high = kind.limits
        axes.set_ylim(low - 0.03, high + 0.03)
    axes.set(xlabel='block', ylabel=kind.axis, xlim=(0.4, len(median) + 0.6))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True, min_n_ticks=1))
    axes.grid(axis='y', alpha=0.3)
    if len(series) > 1:
        below = dict(loc='upper center', bbox_to_anchor=(0.5, -0.2))
        axes.legend(fontsize=9, ncols=min(len(series), 2), frameon=False, **below)
