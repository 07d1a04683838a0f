"""Nothing but the names that modules had before they moved to rooms of their own.

Saved configs and code of users may import them: ``mmdla.errors`` is ``mmdla.errors``.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    'mmdla.apis.fold': 'mmdla.apis.fold',
    'mmdla.apis.zoo': 'mmdla.apis.zoo',
    'mmdla.datasets.annotations': 'mmdla.datasets.annotations',
    'mmdla.datasets.check_data': 'mmdla.datasets.check_data',
    'mmdla.datasets.classes': 'mmdla.datasets.classes',
    'mmdla.cli.command_line': 'mmdla.cli.command_line',
    'mmdla.apis.compare': 'mmdla.apis.compare',
    'mmdla.analysis.complexity': 'mmdla.analysis.complexity',
    'mmdla.engine.config': 'mmdla.engine.config',
    'mmdla.config_types': 'mmdla.config_types',
    'mmdla.datasets.data': 'mmdla.datasets.data',
    'mmdla.datasets.data_errors': 'mmdla.datasets.data_errors',
    'mmdla.errors': 'mmdla.errors',
    'mmdla.apis.export': 'mmdla.apis.export',
    'mmdla.files': 'mmdla.files',
    'mmdla.datasets.findings': 'mmdla.datasets.findings',
    'mmdla.apis.inputs': 'mmdla.apis.inputs',
    'mmdla.analysis.macs': 'mmdla.analysis.macs',
    'mmdla.analysis.memory': 'mmdla.analysis.memory',
    'mmdla.apis.model': 'mmdla.apis.model',
    'mmdla.datasets.images': 'mmdla.datasets.images',
    'mmdla.apis.pipeline': 'mmdla.apis.pipeline',
    'mmdla.apis.predict': 'mmdla.apis.predict',
    'mmdla.apis.video': 'mmdla.apis.video',
}


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find a module under its old name: the very same module object."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(MOVED[spec.name])
        self.own_spec = module.__spec__  # which the import system is about to replace
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own_spec


def find_moved_modules() -> None:
    """Let modules be imported under their old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
