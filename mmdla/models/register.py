"""Names in MMEngine's root registry that others may take."""

from typing import Any

from mmengine.registry import MODELS, Registry

_ours: dict[str, type] = {}


def register_yielding(cls: type) -> type:
    """Register a class under its name, until somebody else registers that name.

    For names that are in common use: ``MODELS.build(dict(type='SE'))`` finds ours where nobody has
    another one. What others have registered before stays, and what they register afterwards takes
    the place of ours without ``force=True``. The registries of host libraries come first anyhow.

    Args:
        cls (type): The class.

    Returns:
        type: The same class.
    """
    _ours[cls.__name__] = cls
    _make_yielding(MODELS)
    MODELS.module_dict.setdefault(cls.__name__, cls)
    return cls


def _make_yielding(registry: Registry) -> None:
    """Let ``registry`` drop our entry before it takes another of that name."""
    register = registry._register_module
    if getattr(register, 'yields', False):
        return

    def register_module(module: Any, module_name: Any = None, force: bool = False) -> None:
        if callable(module):  # else refused
            names = getattr(module, '__name__', None) if module_name is None else module_name
            for name in [names] if isinstance(names, str) else names or ():
                if name in _ours and registry.module_dict.get(name) is _ours[name] is not module:
                    del registry.module_dict[name]
        register(module=module, module_name=module_name, force=force)

    register_module.yields = True
    registry._register_module = register_module
