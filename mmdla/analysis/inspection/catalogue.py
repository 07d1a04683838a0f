"""Figures of a stage, and what a reader is told about each."""

from dataclasses import dataclass

from .records import StageRecord


@dataclass(frozen=True)
class FigureKind:
    """One kind of figure.

    Args:
        name (str): Short name, for files and TensorBoard.
        title (str): Headline.
        shows (str): What is drawn.
        look_for (str): What to look for in it.
        series (dict[str, str]): Quantities of :class:`StageRecord` with their labels.
        draw (str): ``'matrix'`` (block by block) or ``'spread'`` (median, quartiles, tails).
        axis (str): What the values are.
        limits (tuple[float, float], optional): Range of the values, if they have one.
    """

    name: str
    title: str
    shows: str
    look_for: str
    series: dict[str, str]
    draw: str
    axis: str
    limits: tuple[float, float] | None = None

    def is_in(self, stage: StageRecord) -> bool:
        """Return whether the attention of this stage has what the figure shows."""
        return any(name in stage.quantities for name in self.series)


SPREAD = 'Line and bars are over '

FIGURES = (
    FigureKind(
        name='weights',
        title='How much each block attends to each earlier block',
        shows='A row is a block that attends, a column a block that it attends to, a cell the '
        'softmax weight between them, averaged over heads and images. Every row sums to 1; a '
        'block sees itself and earlier blocks only, so the upper right is empty, and the first '
        'row is always a single 1.',
        look_for='A bright diagonal: blocks that mostly keep to themselves. Bright columns: one '
        'block that all later ones draw on. Even rows (1/2, 1/3, 1/4, …): the blocks are merely '
        'averaged, as before training.',
        series=dict(weights='softmax weight'),
        draw='matrix',
        axis='weight',
        limits=(0, 1),
    ),
    FigureKind(
        name='kept',
        title='What the refreshes leave of each earlier block',
        shows='Every new block multiplies the values of all earlier ones by gates between 0 and 1, '
        'again and again. A cell is the product of the gates so far, averaged over channels and '
        'images: 1 on the diagonal, where a value is new.',
        look_for='How fast a column fades downwards. Where it is near 0, that block no longer '
        'contributes, whatever its attention weight is.',
        series=dict(kept='part kept'),
        draw='matrix',
        axis='part kept',
        limits=(0, 1),
    ),
    FigureKind(
        name='gates',
        title='How far each block opens to its own features: the gates a',
        shows='a = σ(q·k / √d), one gate for each head. ' + SPREAD + 'all heads and images.',
        look_for='Gates at 0.5 are undecided, as before training; gates near 0 or 1 have learned '
        'something. A tall bar means that the heads do different things.',
        series=dict(gates='a'),
        draw='spread',
        axis='gate a',
        limits=(0, 1),
    ),
    FigureKind(
        name='lambdas',
        title='How much of the shortcut each block adds again: λ',
        shows='λ is a learned weight for every channel; it does not depend on the image. '
        + SPREAD
        + 'all channels. It starts as random numbers around 0 with deviation 1.',
        look_for='Bars that shrink to 0: blocks that do not use what came before them. Bars away '
        'from 0: channels that carry features of earlier blocks on (or, below 0, subtract them).',
        series=dict(lambdas='λ'),
        draw='spread',
        axis='λ',
    ),
    FigureKind(
        name='refresh',
        title='What the newest context leaves of the shortcut: the refresh d',
        shows='The recurrent unit looks at the shortcut once more, knowing the newest context, and '
        'scales each of its channels by d between 0 and 1. ' + SPREAD + 'all channels and images.',
        look_for='Near 1 the shortcut passes as it is, near 0 the channel is closed. Before '
        'training d is close to 0.5 or 0.6 everywhere; tall bars mean that it selects channels.',
        series=dict(refresh='d'),
        draw='spread',
        axis='refresh d',
        limits=(0, 1),
    ),
    FigureKind(
        name='dsu_gates',
        title='What the recurrent unit lets in, and what it forgets',
        shows='The unit reads one block after another. Its forget gate says how much of the '
        'context stays, its input gate how much of the candidate (a proposal between −1 and 1 for '
        'each channel) is added. ' + SPREAD + 'all channels and images.',
        look_for='A forget gate near 1 with a small input gate remembers early blocks; a small '
        'forget gate starts afresh in every block. All gates at 0.5 mean that nothing was learned.',
        series=dict(
            input_gate='input gate',
            forget_gate='forget gate',
            candidate='candidate',
            output_gate='output gate',
        ),
        draw='spread',
        axis='value',
        limits=(-1, 1),
    ),
    FigureKind(
        name='dsu_context',
        title='What the recurrent unit carries from block to block: context c and state h',
        shows='c is the memory that is handed on, h = σ(c) what the rest of the network sees of it '
        '(with an output gate, that gate times σ(c)). Both start at 0 in every stage. '
        + SPREAD
        + 'all channels and images.',
        look_for='c spreading from block to block: information builds up over the depth. c staying '
        'near 0 (h near 0.5): the context says nothing.',
        series=dict(context='context c', hidden='state h'),
        draw='spread',
        axis='value',
    ),
)
