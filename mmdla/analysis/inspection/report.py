"""One HTML file that opens from disk and needs nothing else: pictures and style are inside."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

STYLE = """
:root { color-scheme: light dark; --page: #f5f6f7; --card: #fff; --edge: #dfe3e7;
  --text: #1d2329; --soft: #525b65; --bar: #1f6fb4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181c; --card: #1e2329; --edge: #343b44; --text: #e4e8ec; --soft: #a8b1bb;
    --bar: #5aa2dd; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 20px 16px 48px; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0.4em 0; }
h2 { font-size: 1.3rem; margin: 1.8em 0 0.4em; }
h3 { font-size: 1.05rem; margin: 0 0 0.4em; overflow-wrap: anywhere; }
p { max-width: 46em; margin: 0.4em 0 0.8em; }
.facts { color: var(--soft); overflow-wrap: anywhere; }
.card h2 { margin-top: 0; font-size: 1.05rem; }
.card { background: var(--card); border: 1px solid var(--edge); border-radius: 10px;
  padding: 16px; margin: 16px 0; }
.grid { --share: calc((100% - (var(--columns) - 1) * 14px) / var(--columns));
  display: grid; gap: 14px;
  grid-template-columns: repeat(auto-fill, minmax(max(var(--share), var(--least)), 1fr)); }
figure { margin: 0; max-width: 520px; }
figure.key { max-width: 440px; margin: 0.8em 0; }
figure img { display: block; width: 100%; height: auto; border-radius: 4px; background: #fff; }
figcaption { font-size: 0.85rem; color: var(--soft); padding-top: 4px; }
table { border-collapse: collapse; margin: 0.4em 0 0.9em; width: 100%; max-width: 30em; }
td { padding: 3px 10px 3px 0; overflow-wrap: anywhere; }
td.bar { width: 45%; }
td.bar div { background: var(--bar); height: 10px; border-radius: 3px; min-width: 1px; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
ul.colors { list-style: none; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 0 0 0.8em;
  padding: 0; }
ul.colors span { display: inline-block; width: 14px; height: 14px; border-radius: 3px;
  margin-right: 6px; border: 1px solid var(--edge); vertical-align: -2px; }
dl { display: grid; gap: 12px 32px; margin: 0.2em 0 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 26em), 1fr)); }
dt { font-weight: 600; } dd { margin: 0; }
"""


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
        body = [f'<h1>{escape(self.title)}</h1>', *_paragraphs(self.intro)]
        body += [f'<div class="facts">{escape(line)}</div>' for line in self.facts]
        if self.terms:
            body.append('<section class="card"><h2>Words of this page</h2><dl>')
            body += [
                f'<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>'
                for k, v in self.terms.items()
            ]
            body.append('</dl></section>')
        for part in self.parts:
            body += [f'<h2>{escape(part.title)}</h2>', *_paragraphs(part.text)]
            body += [_figure(part.key, 'key')] if part.key else []
            body += [_section(section) for section in part.sections]
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<title>{escape(self.title)}</title><style>{STYLE}</style></head>\n<body><main>\n'
            + '\n'.join(body)
            + '\n</main></body></html>\n'
        )


def _paragraphs(text: Sequence[str]) -> list[str]:
    return [f'<p>{escape(line)}</p>' for line in text]


def _section(section: Section) -> str:
    lines = ['<section class="card">', f'<h3>{escape(section.title)}</h3>']
    lines += _paragraphs(section.text)
    if section.rows:
        lines.append('<table>')
        for label, share in section.rows:
            bar = f'<div style="width:{100 * min(max(share, 0), 1):.1f}%"></div>'
            lines.append(
                f'<tr><td>{escape(label)}</td><td class="bar">{bar}</td>'
                f'<td class="number">{100 * share:.1f} %</td></tr>'
            )
        lines.append('</table>')
    if section.colors:
        lines.append('<ul class="colors">')
        lines += [
            f'<li><span style="background:{escape(color)}"></span>{escape(text)}</li>'
            for color, text in section.colors
        ]
        lines.append('</ul>')
    if section.figures:
        style = f'--columns:{section.columns};--least:{section.least}px'
        lines.append(f'<div class="grid" style="{style}">')
        lines += [_figure(figure) for figure in section.figures]
        lines.append('</div>')
    return '\n'.join([*lines, '</section>'])


def _figure(figure: Figure, name: str = '') -> str:
    kind = 'png' if figure.image.startswith(b'\x89PNG') else 'jpeg'
    data = base64.b64encode(figure.image).decode()
    caption = f'<figcaption>{escape(figure.caption)}</figcaption>' if figure.caption else ''
    attribute = f' class="{name}"' if name else ''
    return (
        f'<figure{attribute}><img alt="{escape(figure.alt)}" src="data:image/{kind};base64,{data}">'
        f'{caption}</figure>'
    )
