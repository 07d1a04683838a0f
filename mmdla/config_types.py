"""``type`` in a config: a name, with or without the module that it is in, or the class itself."""

from collections.abc import Iterable
from typing import Any

from mmengine.config import Config
from mmengine.registry import DefaultScope, Registry


def type_name(kind: Any) -> str:
    """Return the bare name: ``'CocoDataset'`` for the class, ``'mmdet.CocoDataset'`` and such."""
    return kind.split('.')[-1] if isinstance(kind, str) else getattr(kind, '__name__', str(kind))


def resolve_type(kind: Any, registry: Registry, scope: str | None = None) -> Any:
    """Return the class (or function) of a ``type``, or ``None`` if nothing has that name.

    Args:
        kind (str | type): The ``type`` of a config.
        registry (Registry): MMEngine's root registry of such things.
        scope (str, optional): Library in whose registry the name is looked for first.
    """
    if not isinstance(kind, str):
        return kind
    if scope is None:
        return registry.get(kind)
    with DefaultScope.overwrite_default_scope(scope):
        with registry.switch_scope_and_registry(None) as of_scope:
            return of_scope.get(kind)


def import_types(values: Iterable) -> None:
    """Import what a pure Python config names, which MMEngine does where it is looked at.

    Raises:
        ImportError: Names what is not there, and the line of the config.
    """
    for value in values:
        if isinstance(value, dict):
            import_types(value.values())
        elif isinstance(value, (list, tuple)):
            import_types(value)


def infer_scope(cfg: Config) -> str | None:
    """Return the library of a config: ``default_scope``, else the one that its model is from.

    Configs whose ``type`` is a class often come without ``default_scope``.
    """
    scope = cfg.get('default_scope')
    model = cfg.get('model')
    if scope is None and isinstance(model, dict) and model.get('type') is not None:
        kind = model['type']
        name = kind if isinstance(kind, str) else f'{getattr(kind, "__module__", "")}.'
        scope = name.split('.')[0] if '.' in name else None
    return scope
