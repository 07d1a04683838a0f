"""Defaults of the class that a config named before its one word was changed.

A config that leaves an argument out must mean what it meant with the host library's own ResNet, so
the defaults are read from the signature of that class, which is looked up as the library itself
looks it up: through the registry of MMEngine's default scope.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from mmengine.registry import MODELS, DefaultScope
from torch import nn

from ..arguments import check_names, parameters_of

NOT_FOLLOWED = ('self', 'depth', 'init_cfg', 'pretrained')


def host_scope() -> str | None:
    """Return the library whose config is being built, e.g. ``'mmdet'``, or None."""
    scope = DefaultScope.get_current_instance()
    name = None if scope is None else scope.scope_name
    return None if name == 'mmengine' else name


def host_class(name: str = 'ResNet') -> type | None:
    """Return what ``name`` (or else ``'ResNet'``) means to the library whose config is being built.

    Libraries without a ResNet of their own (MMRotate, MMDetection3D, MMYOLO, MMOCR) are built on
    MMDetection and write ``mmdet.ResNet``.

    Raises:
        ValueError: The library is MMAction2, whose ResNet has another form of output.
    """
    scope = host_scope()
    if scope is None:
        return None
    if scope == 'mmaction':
        raise ValueError(
            "default scope 'mmaction': MMAction2's ResNet returns a bare tensor for one output and "
            'takes act_cfg and partial_bn, which DLAResNet does not'
        )
    with MODELS.switch_scope_and_registry(None) as registry:
        names = dict.fromkeys((name, 'ResNet', f'mmdet.{name}', 'mmdet.ResNet'))
        for one in names:
            try:
                found = registry.get(one)
            except ImportError:  # a library that is not there
                continue
            if isinstance(found, type) and issubclass(found, nn.Module):
                return found
    return None


def host_defaults(name: str = 'ResNet') -> dict[str, Any]:
    """Default of every argument of :func:`host_class`, those of its base classes included."""
    cls = host_class(name)
    if cls is None:
        return {}
    parameters = parameters_of(cls)
    return {
        key: parameter.default
        for key, parameter in parameters.items()
        if key not in NOT_FOLLOWED and parameter.default is not inspect.Parameter.empty
    }


def follow_host(init: Callable) -> Callable:
    """Let a constructor take the host's defaults for arguments that are left out.

    ``None`` counts as left out where it is the constructor's own default. An argument that does
    not exist is refused with the nearest right word.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapped(self, *args: Any, **kwargs: Any) -> None:
        own = signature.parameters
        check_names('', type(self), kwargs, init)
        given = signature.bind_partial(self, *args, **kwargs).arguments
        for key, default in host_defaults(self.host_name).items():
            if key not in own:
                continue
            if key not in given or (given[key] is None and own[key].default is None):
                given[key] = default
        if 'out_indices' not in kwargs and given.get('out_indices') is not None:
            last = given.get('num_stages', own['num_stages'].default)
            given['out_indices'] = _within(given['out_indices'], last)
        init(**given)

    return wrapped


def _within(out_indices: Any, num_stages: Any) -> tuple:
    """Return the host's default for four stages, for as many as there are: all, or the last."""
    if not isinstance(num_stages, int) or num_stages < 1:
        return out_indices  # refused where it is checked
    return tuple(sorted({min(i, num_stages - 1) for i in out_indices}))
