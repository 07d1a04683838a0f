"""One version: what is imported, installed, and written in the changelog."""

import re
from importlib.metadata import version

import pytest
from packaging.version import Version

import mmdla

KINDS = ('Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security')


@pytest.fixture(scope='module')
def changelog(repo):
    return (repo / 'CHANGELOG.md').read_text()


def test_version_is_semantic():
    assert re.fullmatch(r'\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?', mmdla.__version__)


def test_changelog_ends_at_this_version(changelog):
    """Newest first, below what is not released; each dated."""
    first, *released = re.findall(r'^## (.*)$', changelog, re.M)
    assert first == '[Unreleased]'
    entries = [re.fullmatch(r'\[(\S+)\] - (\d{4}-\d\d-\d\d)', heading) for heading in released]
    assert all(entries), released
    versions = [Version(entry[1]) for entry in entries]
    assert str(versions[0]) == mmdla.__version__
    assert versions == sorted(set(versions), reverse=True)
    dates = [entry[2] for entry in entries]
    assert dates == sorted(dates, reverse=True)


def test_changelog_sorts_changes_by_kind(changelog):
    kinds = re.findall(r'^### (.*)$', changelog, re.M)
    assert kinds and set(kinds) <= set(KINDS)


def test_installed_under_this_version():
    assert version('mmdla') == mmdla.__version__
