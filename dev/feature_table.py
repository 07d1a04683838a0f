"""Write the README's table of attentions, backbones and hosts from the tests that ran."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / 'README.md'
TESTS = ROOT / 'tests/models/wrapper/test_features.py'
START, END = '<!-- table by dev/feature_table.py -->', '<!-- end of table of features -->'


class Collector:
    """A plugin of pytest that keeps what the tests have found."""

    def __init__(self) -> None:
        self.cells: dict[str, dict[str, str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == 'call' and report.passed:
            for key, value in report.user_properties:
                if key == 'cell':
                    row, attention, found = value
                    self.cells.setdefault(row, {})[attention] = found


def run_tests() -> dict[str, dict[str, str]]:
    """Return the cells by row and attention.

    Raises:
        SystemExit: A test fails.
    """
    collector = Collector()
    argv = ['-p', 'no:cacheprovider', f'--rootdir={ROOT}', f'{TESTS}::test_cell']
    if code := pytest.main(argv, plugins=[collector]):
        sys.exit(f'error: tests fail ({code}), nothing was written')
    return collector.cells


def table(cells: dict[str, dict[str, str]], before: str) -> str:
    """Return the rows; those of libraries that are not installed are as they were ``before``."""
    attentions = next(iter(cells.values()))
    head = ['backbone, library', *(f'`{attention}`' for attention in attentions)]
    old = {line.split('|')[1].strip(): line for line in before.splitlines() if '`, MM' in line}
    new = {}
    for row, found in cells.items():
        title = title_of(row)
        new[title] = '| ' + ' | '.join([title, *(found[name] for name in attentions)]) + ' |'
    resnets = [title for title in {**new, **old} if title.startswith('`DLAResNet`')]
    order = dict.fromkeys((*resnets, *new, *old))
    lines = [{**old, **new}[title] for title in order]
    return '\n'.join([f'| {" | ".join(head)} |', '|---' * len(head) + '|', *lines])


def title_of(row: str) -> str:
    sys.path.insert(0, str(TESTS.parent))
    from test_features import LIBRARIES

    name, scope = row.split(', ')
    return f'`{name}`, {LIBRARIES[scope]}'


def main() -> None:
    text = README.read_text()
    before, start, rest = text.partition(START)
    old, end, after = rest.partition(END)
    if not (start and end):
        raise ValueError(f'{README} lacks the marks {START!r} and {END!r}')
    new = f'{before}{START}\n\n{table(run_tests(), old)}\n\n{END}{after}'
    part = README.with_name(f'{README.name}.part')
    part.write_text(new)
    os.replace(part, README)


if __name__ == '__main__':
    main()
