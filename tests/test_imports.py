"""Who may import whom: subpackages import those below them, and names that moved still work."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from mmengine.registry import HOOKS

import mmdla
from mmdla.utils import MOVED

ROOT = Path(mmdla.__file__).parent
# from the bottom; those of one line do not import each other. CONTRIBUTING.md draws it.
LEVELS = [
    ['version', 'errors', 'files', 'config_types', '_combinations', '_dependencies', '_hosts'],
    ['ops'],
    ['checkpoint'],
    ['models'],
    ['engine'],
    ['datasets'],
    ['apis'],
    ['analysis'],
    ['reproduce'],
    ['cli'],
    ['utils', '__main__'],
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
WITHIN = {'files': ['errors'], '_dependencies': ['_combinations']}


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix('.py')


def imported_parts(path):
    """Subpackages that a file imports when it is imported itself, and in its functions."""
    package = ['mmdla', *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = '.'.join([*base, *([node.module] if node.module else [])])
            names = [f'{name}.{alias.name}' for alias in node.names] if name == 'mmdla' else [name]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for found in names:
            parts = found.split('.')
            if parts[0] == 'mmdla' and len(parts) > 1:
                yield parts[1]


FILES = [p for p in sorted(ROOT.glob('**/*.py')) if p.parent != ROOT or p.name != '__init__.py']


@pytest.mark.parametrize('path', FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_imported_from_above(path):
    part = part_of(path)
    for other in set(imported_parts(path)) & LEVEL.keys():
        allowed = LEVEL[other] < LEVEL[part] or other == part or other in WITHIN.get(part, ())
        assert allowed, f'{part} imports {other}, which is above it'


def test_contributing_draws_the_levels():
    text = (ROOT.parent / 'CONTRIBUTING.md').read_text().partition('## Where what is')[2]
    drawn = re.findall(r'^ (\w+)(?=  )', text.split('```')[1], re.M)
    levels = [LEVEL[part] for part in drawn]
    assert levels == sorted(levels, reverse=True)
    folders = {part for part in LEVEL if (ROOT / part).is_dir()}
    assert folders <= {*drawn, 'utils'}  # which has old names alone


def test_every_subpackage_has_a_level():
    assert {part_of(path) for path in FILES} - {'.mim'} == set(LEVEL)


@pytest.mark.parametrize('old', sorted(MOVED))
def test_moved_names_are_the_same_module(old):
    module = importlib.import_module(old)
    assert module is importlib.import_module(MOVED[old])
    assert module.__spec__.name == MOVED[old]


def test_saved_configs_find_what_moved_with_its_package():
    """Also a class that a config in pure Python names by its module."""
    for name in ('mmdla.inspection.LayerAttentionHook', 'mmdla.inspection.hook.LayerAttentionHook'):
        assert HOOKS.get(name) is mmdla.LayerAttentionHook
    assert importlib.import_module('mmdla.inspection.records') is importlib.import_module(
        'mmdla.analysis.inspection.records'
    )
    with pytest.raises(ModuleNotFoundError, match=r'inspection\.nothing'):
        importlib.import_module('mmdla.inspection.nothing')
