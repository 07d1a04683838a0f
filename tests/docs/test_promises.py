"""``docs/promises.md`` names a test for every section of the README, and each is there."""

import ast
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
TABLE = (REPO / 'docs/promises.md').read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith('| ')]
PROMISES = [line for line in ROWS if not line.startswith('| promise |')]
IDS = sorted(set(re.findall(r'`(tests/\S+?::\w+)`', TABLE)))


def headings(text, level):
    return re.findall(rf'^{"#" * level} (.*)$', text, re.M)


@pytest.mark.parametrize('test', IDS)
def test_named_test_exists(test):
    path, name = test.split('::')
    assert name.startswith('test_')
    tree = ast.parse((REPO / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize('row', PROMISES)
def test_every_promise_has_a_test_or_was_measured(row):
    assert row.count('|') == 3
    assert re.search(r'`tests/\S+?::test_\w+`', row) or '*measured*' in row


def test_every_section_of_the_readme_has_its_promises():
    readme = re.sub(r'^```.*?^```', '', (REPO / 'README.md').read_text(), flags=re.M | re.S)
    sections = {*headings(readme, 2), *headings(readme, 3)}
    assert sections and sections <= set(headings(TABLE, 2))


def test_few_are_but_measured():
    assert sum('*measured*' in row for row in PROMISES) <= 4 < len(PROMISES) / 10
