"""Put together what the report of a model and its images says, and the files beside it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .activation import ActivationMap, activation_maps
from .catalogue import FIGURES
from .figures import draw, draw_key, in_words, to_png
from .model_under_test import ModelUnderTest, Prediction
from .photos import box_colors, color_scale, draw_boxes, encode, enlarge, overlay
from .recording import record
from .records import StageRecord, join_records
from .report import Figure, Part, Report, Section

INTRO = (
    'A ResNet is a chain of blocks, grouped into stages. In a plain one a block gets nothing but '
    'what the block before it hands on. With layer attention it also looks at the earlier blocks '
    'of its stage and takes over part of what they have seen. This page shows what a trained model '
    'does with that on the images below.',
)
TERMS = {
    'stage (layer1, layer2, …)': 'Blocks that work at one resolution; each stage works on coarser '
    'maps than the one before it. The attention connects blocks within a stage only.',
    'block': 'A few convolutions with a shortcut around them: block 1 is the first of its stage.',
    'shortcut': 'What a block got from the block before it and hands on beside its own result.',
    'channel, head': 'The features are maps of the image, hundreds of them: the channels. A head '
    'is a group of neighbouring channels that share their attention.',
    'context': 'What a small recurrent unit, which reads one block after another, has gathered '
    'from the blocks so far; it starts from nothing in every stage.',
    'gate, σ': 'A number between 0 (closed) and 1 (open) that something is multiplied with; σ, the '
    'sigmoid, makes such numbers, 0.5 from a 0.',
}
ABOUT = {
    'MRLALight': 'This model has MRLA-L: each block adds to its result its own features once more, '
    'as far as a gate a lets them through, and its shortcut, weighted by λ.',
    'DLALight': 'This model has DLA-L: each block adds to its result its own features once more, '
    'as far as a gate a lets them through, and its shortcut, weighted by λ. Before that a '
    'recurrent unit, which has read all blocks so far, refreshes the shortcut: it scales its '
    'channels by d.',
    'MRLABase': 'This model has MRLA-B: each block adds to its result a weighted sum of the values '
    '(features) of all blocks so far.',
    'DLABase': 'This model has DLA-B: each block adds to its result a weighted sum of the values '
    '(features) of all blocks so far. A recurrent unit, which reads each new block, refreshes the '
    'earlier ones before: it scales their channels, again and again.',
    'DIALSTM': 'This model has DIA-LSTM: a recurrent unit that reads all blocks scales what each '
    'of them adds.',
}

KEY = (
    'How to read the line and the bars below: the line is the median, half of the values are in '
    'the dark bar, nine tenths in the pale one.'
)
DOTS = ' Regular dots are the places where a detector samples the features of a region.'


@dataclass(frozen=True)
class Look:
    """Results for one image."""

    path: Path
    image: np.ndarray  # RGB (H, W, 3), as the network gets it
    found: list[Prediction]
    stages: list[StageRecord]
    maps: list[ActivationMap]


@dataclass
class Page:
    """Everything that is written: the report, figures by file name, numbers for the JSON file."""

    report: Report
    figures: dict[str, bytes] = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)


def look_at(subject: ModelUnderTest, path: Path, layers: Sequence[str]) -> Look:
    """Run the model on one image: once as in use, recorded, and once more for gradients.

    Raises:
        InputError: A layer is not there or gives no feature map.
    """
    data, image = subject.prepare(path)
    with record(subject.model, subject.backbone) as recording:
        found = subject.find(data)
    maps = activation_maps(
        subject.model,
        subject.backbone,
        layers,
        lambda: subject.target(data),
        pooled=not subject.is_detector,
    )
    return Look(path, image, found, recording.stages(), maps)


def make_page(subject: ModelUnderTest, looks: Sequence[Look], facts: dict[str, str]) -> Page:
    """Return the page about some images.

    Args:
        subject (ModelUnderTest): The model.
        looks (Sequence[Look]): One for every image.
        facts (dict[str, str]): What the page says about its origin, e.g. the config.
    """
    stages = join_records([look.stages for look in looks])
    kind = stages[0].kind
    facts = {**facts, 'layer attention': kind, 'images': str(len(looks))}
    page = Page(
        Report(
            'A look inside: layer attention',
            intro=(*INTRO, ABOUT.get(kind, f'Its type is {kind}.')),
        )
    )
    page.report.facts = [f'{name}: {value}' for name, value in facts.items()]
    page.report.terms = TERMS
    page.report.parts += [_images(page, subject, looks), _attention(page, stages, len(looks))]
    page.numbers = dict(
        **facts,
        mean={stage.stage: stage.summary() for stage in stages},
        by_picture=[
            dict(
                file=str(look.path),
                found=[vars(one) for one in look.found],
                stages={stage.stage: stage.summary() for stage in look.stages},
            )
            for look in looks
        ],
    )
    return page


def _images(page: Page, subject: ModelUnderTest, looks: Sequence[Look]) -> Part:
    if subject.is_detector:
        reason = (
            f'the objects found with a score of at least {subject.score:g}: at every place the '
            'features times the gradient of the sum of their scores (for one-stage detectors with '
            'those of their duplicates)'
        )
    else:
        reason = 'the first class of the list (Grad-CAM, from the gradients of its score)'
    text = (
        '“Activity” is how strong the features of a stage are, averaged over its channels. '
        f'“Evidence” is what in them speaks for {reason}. Every map has a scale of its own, up to '
        'its strongest place, so compare places, not maps.',
        'What to look for: activity and evidence on the objects themselves. Evidence on the '
        'background or at the edges says that the model goes by something else.'
        + (DOTS if subject.is_detector else ''),
    )
    sections = [_image(page, subject, number, look) for number, look in enumerate(looks, 1)]
    alt = 'Colour scale of the maps: grey, purple, orange, yellow'
    caption = 'Nothing (the grey image) … most (yellow)'
    return Part('The images', text, sections, Figure(encode(color_scale(), '.png'), alt, caption))


def _image(page: Page, subject: ModelUnderTest, number: int, look: Look) -> Section:
    shown = [('picture', enlarge(look.image), 'as the network gets it')]
    if subject.is_detector:
        shown.insert(0, ('found', draw_boxes(look.image, look.found), 'what was found'))
    activity, evidence = [], []
    for one in look.maps:
        layer = one.layer.removeprefix('backbone.')
        image = overlay(look.image, one.strength, one.size)
        activity.append((f'{layer}_activity', image, f'{layer}: activity'))
        if one.evidence is not None:
            image = overlay(look.image, one.evidence, one.size, lowest=0)
            evidence.append((f'{layer}_evidence', image, f'{layer}: evidence'))
    # in rows: found and activities, image and evidences; or the three of a classifier
    shown = [*shown[:1], *activity, *shown[1:], *evidence]
    columns = 1 + len(activity) if subject.is_detector else 1 + len(activity) + len(evidence)
    figures = []
    for file, image, text in shown:
        file = file.replace('.', '_')
        page.figures[f'picture{number}_{file}.png'] = encode(image, '.png')
        figures.append(Figure(encode(image, '.jpg'), f'{look.path.name}, {text}', text))
    lines, rows, colors = [], [], []
    if subject.is_detector:
        counts = Counter(one.label for one in look.found)
        colors = [
            (color, f'{counts[label]} × {label}') for label, color in box_colors(look.found).items()
        ]
        least = f'(score at least {subject.score:g})'
        lines.append(f'Found {least}:' if look.found else f'Found: nothing {least}.')
        if not look.found:
            lines.append('Without an object there is nothing that evidence could speak for.')
        elif not evidence:
            lines.append('The scores of this detector cannot be traced back to these layers.')
    else:
        lines.append('What the model says, the most probable classes first:')
        rows = [(one.label, one.score) for one in look.found]
    return Section(look.path.name, lines, figures, rows, colors, min(columns, 5), least=140)


def _attention(page: Page, stages: Sequence[StageRecord], images: int) -> Part:
    sections, key = [], None
    for kind in FIGURES:
        shown = [stage for stage in stages if kind.is_in(stage)]
        figures = []
        for stage in shown:
            image = to_png(draw(kind, [stage], comparable=shown))
            page.figures[f'{kind.name}_{stage.stage}.png'] = image
            figures.append(Figure(image, in_words(kind, stage)))
        if figures:
            text = (kind.shows, f'What to look for: {kind.look_for}')
            columns = 2 if len(figures) == 4 else 3
            sections.append(Section(kind.title, text, figures, columns=columns))
        if figures and kind.draw == 'spread':
            key = Figure(to_png(draw_key()), KEY, KEY)
    over = 'the image' if images == 1 else f'the {images} images'
    text = (f'One panel for each stage, over {over} above. Blocks are counted from the first.',)
    return Part('The layer attention', text, sections, key)
