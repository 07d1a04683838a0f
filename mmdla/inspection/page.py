"""Put together what the report of a model and its pictures says, and the files beside it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .activation import ActivationMap, activation_maps
from .catalogue import FIGURES
from .figures import draw, to_png
from .photos import draw_boxes, encode, enlarge, overlay
from .recorder import record
from .records import StageRecord, join_records
from .report import Figure, Report, Section
from .subject import Found, Subject

INTRO = (
    'A ResNet is a chain of blocks, grouped into stages. With layer attention each block also '
    'looks at the earlier blocks of its stage and takes over part of what they have seen. This '
    'page shows what it does on the pictures below.',
)
TERMS = {
    'stage (layer1, layer2, …)': 'Blocks that work at one resolution; each stage works on coarser '
    'maps than the one before it. The attention connects blocks within a stage only.',
    'block': 'A few convolutions with a shortcut around them: block 1 is the first of its stage.',
    'channel, head': 'A feature map consists of many channels; a head is a group of neighbouring '
    'channels that share their attention.',
    'context': 'What a small recurrent unit has gathered from the blocks so far.',
}
ABOUT = {
    'MRLALight': 'MRLA-L: each block adds its own features, through a gate a, and its shortcut, '
    'weighted by λ.',
    'DLALight': 'DLA-L: each block adds its own features, through a gate a, and its shortcut, '
    'weighted by λ, after a recurrent unit that has read all blocks so far has refreshed it by d.',
    'MRLABase': 'MRLA-B: each block adds a weighted sum of the values of all blocks so far.',
    'DLABase': 'DLA-B: each block adds a weighted sum of the values of all blocks so far, which a '
    'recurrent unit that has read these blocks refreshes again and again.',
    'DIALSTM': 'DIA-LSTM: a recurrent unit that reads all blocks scales what each of them adds.',
}

DOTS = ' Regular dots are the places where a detector samples the features of a region.'


@dataclass(frozen=True)
class Look:
    """What a look at one picture has shown."""

    path: Path
    picture: np.ndarray  # RGB (H, W, 3), as the network gets it
    found: list[Found]
    stages: list[StageRecord]
    maps: list[ActivationMap]


@dataclass
class Page:
    """Everything that is written: the report, figures by file name, numbers for the JSON file."""

    report: Report
    figures: dict[str, bytes] = field(default_factory=dict)
    numbers: dict = field(default_factory=dict)


def look_at(subject: Subject, path: Path, layers: Sequence[str]) -> Look:
    """Run the model on one picture: once as in use, recorded, and once more for gradients.

    Raises:
        InputError: A layer is not there or gives no feature map.
    """
    data, picture = subject.prepare(path)
    with record(subject.model) as recording:
        found = subject.find(data)
    maps = activation_maps(
        subject.model,
        subject.backbone,
        layers,
        lambda: subject.target(data),
        pooled=not subject.is_detector,
    )
    return Look(path, picture, found, recording.stages(), maps)


def make_page(subject: Subject, looks: Sequence[Look], facts: dict[str, str]) -> Page:
    """The page about some pictures.

    Args:
        subject (Subject): The model.
        looks (Sequence[Look]): One for every picture.
        facts (dict[str, str]): What the page says about its origin, e.g. the config.
    """
    stages = join_records([look.stages for look in looks])
    kind = stages[0].kind
    facts = {**facts, 'layer attention': kind, 'pictures': str(len(looks))}
    page = Page(
        Report(
            'A look inside: layer attention',
            intro=(*INTRO, ABOUT.get(kind, f'Its type is {kind}.')),
        )
    )
    page.report.facts = [f'{name}: {value}' for name, value in facts.items()]
    page.report.terms = TERMS
    page.report.parts += [_pictures(page, subject, looks), _attention(page, stages, len(looks))]
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


def _pictures(page: Page, subject: Subject, looks: Sequence[Look]) -> tuple:
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
        f'“Evidence” is what in them speaks for {reason}. Grey and black is little, yellow much; '
        'every map has a scale of its own, so compare places, not maps.',
        'What to look for: activity and evidence on the objects themselves. Evidence on the '
        'background or at the edges says that the model goes by something else.'
        + (DOTS if subject.is_detector else ''),
    )
    sections = [_picture(page, subject, number, look) for number, look in enumerate(looks, 1)]
    return 'The pictures', text, sections


def _picture(page: Page, subject: Subject, number: int, look: Look) -> Section:
    shown = [('picture', enlarge(look.picture), 'as the network gets it')]
    if subject.is_detector:
        shown.insert(0, ('found', draw_boxes(look.picture, look.found), 'what was found'))
    activity, evidence = [], []
    for one in look.maps:
        layer = one.layer.removeprefix('backbone.')
        image = overlay(look.picture, one.strength, one.size)
        activity.append((f'{layer}_activity', image, f'{layer}: activity'))
        if one.evidence is not None:
            image = overlay(look.picture, one.evidence, one.size, lowest=0)
            evidence.append((f'{layer}_evidence', image, f'{layer}: evidence'))
    # in rows: found and activities, picture and evidences; or the three of a classifier
    shown = [*shown[:1], *activity, *shown[1:], *evidence]
    columns = 1 + len(activity) if subject.is_detector else 1 + len(activity) + len(evidence)
    figures = []
    for file, image, text in shown:
        file = file.replace('.', '_')
        page.figures[f'picture{number}_{file}.png'] = encode(image, '.png')
        figures.append(Figure(encode(image, '.jpg'), f'{look.path.name}, {text}', text))
    lines, rows = [], []
    if subject.is_detector:
        counts = Counter(one.label for one in look.found)
        listed = ', '.join(f'{count} × {label}' for label, count in counts.most_common())
        lines.append(f'Found: {listed or "nothing"} (score at least {subject.score:g}).')
        if not look.found:
            lines.append('Without an object there is nothing that evidence could speak for.')
        elif not evidence:
            lines.append('The scores of this detector cannot be traced back to these layers.')
    else:
        lines.append('What the model says, the most probable classes first:')
        rows = [(one.label, one.score) for one in look.found]
    return Section(look.path.name, lines, figures, rows, min(columns, 5), 190)


def _attention(page: Page, stages: Sequence[StageRecord], pictures: int) -> tuple:
    sections = []
    for kind in FIGURES:
        figures = []
        for stage in stages:
            if kind.is_in(stage):
                image = to_png(draw(kind, [stage]))
                page.figures[f'{kind.name}_{stage.stage}.png'] = image
                figures.append(Figure(image, f'{kind.title}, {stage.stage}'))
        if figures:
            text = (kind.shows, f'What to look for: {kind.look_for}')
            sections.append(Section(kind.title, text, figures))
    over = 'the picture' if pictures == 1 else f'the {pictures} pictures'
    text = (f'One panel for each stage, over {over} above. Blocks are counted from the first.',)
    return 'The layer attention', text, sections
