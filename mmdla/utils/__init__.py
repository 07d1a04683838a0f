"""Nothing but the names that modules had before they moved to subpackages of their own.

Saved configs and code of users may import them: ``mmdla.utils.errors`` is ``mmdla.errors``.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {  # a package stands for what is in it
    'mmdla.inspection': 'mmdla.analysis.inspection',
    'mmdla.inspection.recorder': 'mmdla.analysis.inspection.recording',
    'mmdla.deploy': 'mmdla.apis.fold',
    'mmdla.zoo': 'mmdla.apis.zoo',
    'mmdla.utils.annotations': 'mmdla.datasets.annotations',
    'mmdla.utils.check_data': 'mmdla.datasets.check_data',
    'mmdla.utils.classes': 'mmdla.datasets.classes',
    'mmdla.utils.command_line': 'mmdla.cli.command_line',
    'mmdla.utils.compare': 'mmdla.apis.compare',
    'mmdla.utils.complexity': 'mmdla.analysis.complexity',
    'mmdla.utils.config': 'mmdla.engine.config',
    'mmdla.utils.config_types': 'mmdla.config_types',
    'mmdla.utils.data': 'mmdla.datasets.data',
    'mmdla.utils.data_errors': 'mmdla.datasets.data_errors',
    'mmdla.utils.errors': 'mmdla.errors',
    'mmdla.utils.export': 'mmdla.apis.export',
    'mmdla.utils.files': 'mmdla.files',
    'mmdla.utils.findings': 'mmdla.datasets.findings',
    'mmdla.utils.inputs': 'mmdla.apis.inputs',
    'mmdla.utils.macs': 'mmdla.analysis.macs',
    'mmdla.utils.memory': 'mmdla.analysis.memory',
    'mmdla.utils.model': 'mmdla.apis.model',
    'mmdla.utils.pictures': 'mmdla.datasets.images',
    'mmdla.utils.pipeline': 'mmdla.apis.pipeline',
    'mmdla.utils.predict': 'mmdla.apis.predict',
    'mmdla.utils.video': 'mmdla.apis.video',
}


def new_name(old: str) -> str | None:
    """Return the name of a module that has moved, None for others."""
    if old in MOVED:
        return MOVED[old]
    package, _, module = old.rpartition('.')
    return f'{MOVED[package]}.{module}' if package in MOVED else None


class MovedModules(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Find a module under its old name: the very same module object."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if new_name(name) else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(new_name(spec.name) or spec.name)
        self.own_spec = module.__spec__  # which the import system is about to replace
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own_spec


def find_moved_modules() -> None:
    """Let modules be imported under their old names."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.insert(0, MovedModules())
