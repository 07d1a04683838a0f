"""Installed packages that do not work together are named when mmdla is imported."""

import warnings
from types import SimpleNamespace

import pytest

from mmdla import _combinations, _dependencies
from mmdla._combinations import CombinationWarning, check_combinations

ONEDL = {
    'onedl-mmengine': '0.10.12',
    'onedl-mmcv': '2.3.6',
    'onedl-mmdetection': '3.5.1',
    'onedl-mmpretrain': '1.3.6',
    'torch': '2.11.0+cpu',
    'numpy': '2.2.6',
    'setuptools': '82.0.1',
}
OPENMMLAB = {
    'mmengine': '0.10.7',
    'mmcv': '2.1.0',
    'mmdet': '3.3.0',
    'mmpretrain': '1.2.0',
    'torch': '2.4.1',
    'numpy': '1.26.4',
    'setuptools': '80.9.0',
}


@pytest.fixture
def check(monkeypatch):
    """``check(versions)`` runs the check on them, with metadata read as usual from a fake."""

    def run(versions):
        def version(name):
            if name not in versions:
                raise _combinations.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(_combinations, 'version', version)
        check_combinations()

    return run


@pytest.mark.parametrize('versions', [ONEDL, OPENMMLAB, {}], ids=['onedl', 'openmmlab', 'unknown'])
def test_tested_stacks_are_met_with_silence(check, versions):
    """Nor is anything said where pip does not know what is there (conda, sources on the path)."""
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check(versions)


def test_what_is_installed_here_is_met_with_silence():
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check_combinations()


@pytest.mark.parametrize(
    ('base', 'added', 'words'),
    [
        (ONEDL, {'mmengine': '0.10.7'}, "mmengine and onedl-mmengine .*'mmengine'.*pip uninstall"),
        (ONEDL, {'mmcv': '2.1.0'}, "mmcv and onedl-mmcv .*'mmcv'"),
        (ONEDL, {'mmdet': '3.3.0'}, "mmdet and onedl-mmdetection .*'mmdet'"),
        (ONEDL, {'mmpretrain': '1.2.0'}, "mmpretrain and onedl-mmpretrain .*'mmpretrain'"),
        (OPENMMLAB, {'mmcv-lite': '2.1.0'}, "mmcv and mmcv-lite .*'mmcv'"),
        (OPENMMLAB, {'mmcv': '1.7.2'}, r'mmcv 1\.7\.2 is of the OpenMMLab before MMEngine'),
        ({}, {'mmcv-full': '1.7.2'}, r'mmcv 1\.7\.2 is of the OpenMMLab before MMEngine'),
    ],
)
def test_what_cannot_work_is_refused(check, base, added, words):
    with pytest.raises(ImportError, match=f'(?s){words}.*table "Versions" of the README'):
        check(base | added)


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        ({'mmcv': '2.2.0'}, r'mmdet 3\.3\.0 refuses mmcv 2\.2\.0: it needs mmcv >= 2\.0, < 2\.2'),
        ({'torch': '2.6.0'}, r'mmengine 0\.10\.7 cannot read .* with torch 2\.6\.0'),
        ({'torch': '2.11.0+cpu'}, r'mmengine 0\.10\.7 cannot read .* with torch 2\.11\.0'),
        ({'setuptools': '82.0.1'}, r'pkg_resources, which setuptools 82\.0\.1 .*"setuptools<82"'),
        ({'torch': '2.2.2', 'numpy': '2.0.0'}, r'torch 2\.2\.2 .* numpy 2\.0\.0: .*"numpy<2"'),
        ({'mmcv-lite': '2.1.0', 'mmcv': None}, 'mmcv-lite has no compiled ops'),
    ],
)
def test_what_half_works_is_warned_of(check, changed, words):
    versions = {name: found for name, found in (OPENMMLAB | changed).items() if found}
    with pytest.warns(CombinationWarning, match=words) as caught:
        check(versions)
    assert len(caught) == 1


@pytest.mark.parametrize(
    'fine',
    [
        OPENMMLAB | {'torch': '2.5.1'},
        OPENMMLAB | {'setuptools': '81.0.0'},
        OPENMMLAB | {'torch': '2.3.0', 'numpy': '2.0.0'},
        ONEDL | {'torch': '2.12.0'},
        {'mmpretrain': '1.2.0', 'mmcv': '2.2.0', 'mmengine': '0.10.7', 'torch': '2.4.1'},
        {'mmpretrain': '1.2.0', 'mmcv-lite': '2.1.0', 'mmengine': '0.10.7', 'torch': '2.4.1'},
    ],
)
def test_bounds_are_not_overstepped(check, fine):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        check(fine)


@pytest.mark.parametrize(
    ('files', 'warned'),
    [(['_ext.cpython-311-x86_64-linux-gnu.so'], False), ([], True), (None, False)],
)
def test_mmcv_without_operations(check, monkeypatch, tmp_path, files, warned):
    """As pip builds it where it cannot see PyTorch; None: mmcv is not there at all."""
    for name in files or ():
        (tmp_path / name).touch()
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(_combinations, 'find_spec', lambda name: None if files is None else spec)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        check(ONEDL)
        check({name: found for name, found in ONEDL.items() if name != 'onedl-mmdetection'})
    assert ['mmdla install-mmcv' in str(warning.message) for warning in caught] == [True] * warned


def test_importing_mmdla_checks(monkeypatch):
    called = []
    monkeypatch.setattr(_dependencies, 'check_combinations', lambda: called.append(True))
    _dependencies.check_dependencies()
    assert called
