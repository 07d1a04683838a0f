"""One HTML file that opens from disk and needs nothing else: images and style are inside."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, StrictUndefined  # which PyTorch requires

TEMPLATE = Path(__file__).with_name('report.html')


@dataclass(frozen=True)
class Figure:
    """An image with what is written under it.

    Args:
        image (bytes): A PNG or JPEG file.
        alt (str): What it is, for those who cannot see it.
        caption (str): Text below; may be empty.
    """

    image: bytes
    alt: str
    caption: str = ''

    @property
    def source(self) -> str:
        """The image as an address."""
        kind = 'png' if self.image.startswith(b'\x89PNG') else 'jpeg'
        return f'data:image/{kind};base64,{base64.b64encode(self.image).decode()}'


@dataclass(frozen=True)
class Section:
    """A card of the report.

    Args:
        title (str): Headline.
        text (Sequence[str]): Paragraphs above the figures.
        figures (Sequence[Figure]): Laid out side by side where the page is wide enough.
        rows (Sequence[tuple[str, float]]): A small table of shares between 0 and 1.
        colors (Sequence[tuple[str, str]]): CSS colours and what they stand for.
        columns (int): Figures in a row where the page is wide enough.
        least (int): Pixels that a figure needs at least.
    """

    title: str
    text: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    rows: Sequence[tuple[str, float]] = ()
    colors: Sequence[tuple[str, str]] = ()
    columns: int = 3
    least: int = 300


@dataclass(frozen=True)
class Part:
    """A headline of the report with its cards.

    Args:
        title (str): Headline.
        text (Sequence[str]): Paragraphs below it.
        sections (Sequence[Section]): The cards.
        key (Figure, optional): How the figures of the cards are read.
    """

    title: str
    text: Sequence[str]
    sections: Sequence[Section]
    key: Figure | None = None


@dataclass
class Report:
    """A page.

    Args:
        title (str): Headline.
        facts (Sequence[str]): Small lines below: config, checkpoint.
        intro (Sequence[str]): Paragraphs before everything else.
        parts (list[Part]): In order.
        terms (dict[str, str]): Words that are explained before the parts.
    """

    title: str
    facts: Sequence[str] = ()
    intro: Sequence[str] = ()
    parts: list[Part] = field(default_factory=list)
    terms: dict[str, str] = field(default_factory=dict)

    def html(self) -> str:
        """Return the whole file."""
        environment = Environment(autoescape=True, trim_blocks=True, undefined=StrictUndefined)
        return environment.from_string(TEMPLATE.read_text()).render(report=self) + '\n'
