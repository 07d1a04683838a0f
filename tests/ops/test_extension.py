"""The compiled kernels are built whatever an earlier, killed build has left."""

import pytest
from torch.utils import cpp_extension

from mmdla.ops import extension


@pytest.fixture
def build_folder(tmp_path, monkeypatch):
    """An empty place to build in, and nothing loaded yet."""
    monkeypatch.setenv('TORCH_EXTENSIONS_DIR', str(tmp_path))
    monkeypatch.setattr(extension, 'FLAGS', [*extension.FLAGS, '-DTEST_OF_A_KILLED_BUILD'])
    extension.load.cache_clear()
    yield tmp_path / f'mmdla_{extension._key()}'
    extension.load.cache_clear()


def test_a_killed_build_is_not_waited_for(build_folder, monkeypatch):
    build_folder.mkdir()
    (build_folder / 'lock').touch()  # what PyTorch's own build leaves when it is killed
    found = []

    def load(name, sources, *_, **__):
        assert sources == [str(build_folder / 'src' / 'bindings.cpp')]
        found.append((build_folder / 'lock').exists())
        return 'kernels'

    monkeypatch.setattr(cpp_extension, 'load', load)
    assert extension.load() == 'kernels'
    assert found == [False]


def test_the_reason_is_the_compilers_error(build_folder, monkeypatch):
    def load(*_, **__):
        raise RuntimeError('Error building extension\n[1/2] c++ …\nx.h:3:1: error: no such thing\n')

    messages = []
    monkeypatch.setattr(cpp_extension, 'load', load)
    monkeypatch.setattr(extension, 'print_log', lambda message, *_: messages.append(message))
    assert extension.load() is None
    assert messages[-1] == 'mmdla runs without its CPU kernels: x.h:3:1: error: no such thing'
