"""Write docs/api.md from the docstrings of what mmdla offers.

Not left to mkdocstrings, whose pages are on the site alone: this one is read in the repository too.
"""

import argparse
import importlib
import inspect
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / 'docs' / 'api.md'
# module: (heading, names); None for all that the module lists in __all__
MODULES = {
    'mmdla': ('Backbones and attentions', None),
    'mmdla.models.layer_attention.multi_head': (
        'Arguments that MRLA and DLA share',
        ('MultiHeadAttention',),
    ),
    'mmdla.checkpoint': ('Checkpoints', None),
    'mmdla.apis.zoo': ('Models by name', ('register_models',)),
    'mmdla.apis.model': ('Trained models', ('load_model',)),
    'mmdla.apis.export': ('Export', ('Part', 'export_onnx', 'export_program')),
    'mmdla.apis.compare': ('Input of exported models', ('prepare',)),
    'mmdla.analysis.inspection': ('What `record` returns', ('Recording', 'StageRecord')),
    'mmdla.analysis.complexity': ('Counting', ('measure', 'count_macs', 'Complexity')),
    'mmdla.analysis.memory': ('Memory', ('saved_bytes',)),
}
SECTIONS = ('Args', 'Attributes', 'Returns', 'Yields', 'Raises', 'Example')
HEAD = """# API

Written by `dev/api_reference.py` from the docstrings. What the equations mean is told in
[how_it_works.md](how_it_works.md).
"""


def reference() -> str:
    """Return the whole document."""
    parts = [HEAD]
    for module_name, (title, names) in MODULES.items():
        module = importlib.import_module(module_name)
        names = names or sorted(n for n in module.__all__ if not n.startswith('__'))
        parts.append(f'## {title}: `{module_name}`\n')
        parts += [entry(name, getattr(module, name), module_name) for name in names]
    return '\n'.join(parts)


def entry(name: str, thing: Callable, module: str) -> str:
    """One class or function, and the methods that a class adds with a docstring."""
    doc = inspect.getdoc(thing)
    if not doc:
        raise ValueError(f'{module}.{name} has no docstring')
    parts = [f'### {name}\n', signature(name, thing), markdown(doc)]
    for method_name, method in methods(thing):
        parts += [f'#### {name}.{method_name}\n', signature(method_name, method)]
        parts.append(markdown(inspect.getdoc(method)))
    return '\n'.join(parts)


def methods(thing: Callable) -> Iterator[tuple[str, Callable]]:
    """Public methods of a class that are documented where they are defined."""
    if inspect.isclass(thing):
        for name, method in vars(thing).items():
            if inspect.isfunction(method) and not name.startswith('_') and method.__doc__:
                yield name, method


def signature(name: str, thing: Callable) -> str:
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return ''
    text = str(inspect.signature(thing))
    text = re.sub(r' at 0x[0-9a-f]+', '', text).replace('self, ', '').replace('(self)', '()')
    text = re.sub(r'\b[a-z][\w.]*\.(?=[A-Z])', '', text)  # modules of types
    return (
        '```text\n'
        + '\n'.join(textwrap.wrap(name + text, 96, subsequent_indent='    '))
        + '\n```\n'
    )


def markdown(doc: str) -> str:
    """Return a Google docstring with a little reStructuredText as Markdown."""
    lines = []
    section, block = '', []
    for line in [*doc.split('\n'), 'End:']:
        heading = line[:-1] if line.endswith(':') and not line.startswith(' ') else ''
        if heading in (*SECTIONS, 'End'):
            lines += body(section, block)
            section, block = heading, []
            if heading != 'End':
                lines += [f'**{heading}**', '']
        else:
            block.append(line)
    return '\n'.join(lines)


def body(section: str, block: list[str]) -> list[str]:
    text = textwrap.dedent('\n'.join(block)).strip('\n')
    if not text:
        return []
    if section == 'Example':
        return ['```pycon', *text.split('\n'), '```', '']
    if section in ('Args', 'Attributes', 'Raises'):
        return [*items(text), '']
    return list(prose(text))


def items(text: str) -> Iterator[str]:
    """``name (type): what`` with deeper lines that go on, as a list."""
    entries: list[str] = []
    for line in text.split('\n'):
        if line.startswith(' ') or not line:
            entries[-1] += ' ' + line.strip()
        else:
            entries.append(line)
    for one in entries:
        name, _, what = one.partition(': ')
        yield f'- `{name}`: {inline(what)}' if what else f'- {inline(one)}'


def prose(text: str) -> Iterator[str]:
    """Paragraphs; equations become blocks that GitHub sets."""
    for part in re.split(r'(?m)^(\.\. math::(?:.*\n(?:\n|[ \t]+.*\n?)*))', text + '\n'):
        if part.startswith('.. math::'):
            equation = textwrap.dedent(part.removeprefix('.. math::')).strip()
            if r'\\' in equation:
                equation = '\\begin{aligned}\n' + equation + '\n\\end{aligned}'
            yield from ('```math', *equation.split('\n'), '```', '')
        elif part.strip():
            yield from (*inline(part).strip('\n').split('\n'), '')


def inline(text: str) -> str:
    """Roles and double backticks."""
    text = re.sub(r':math:`(.+?)`', r'$`\1`$', text, flags=re.S)
    text = re.sub(r':\w+:`~?(.+?)`', lambda m: f'``{m[1].removeprefix("mmdla.")}``', text)
    return text.replace('``', '`')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='write nothing, fail if out of date')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    text = reference().rstrip('\n') + '\n'
    if FILE.exists() and FILE.read_text() == text:
        return
    if args.check:
        sys.exit(f'error: {FILE.name} out of date: run python dev/api_reference.py')
    part = FILE.with_name(f'{FILE.name}.part')
    part.write_text(text)
    os.replace(part, FILE)
    print(f'wrote {FILE}')


if __name__ == '__main__':
    main()
