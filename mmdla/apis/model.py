"""A trained model from its config and checkpoint, for inference."""

from copy import deepcopy

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model.utils import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, DefaultScope
from torch import nn

from mmdla.apis.pipeline import test_dataset
from mmdla.checkpoint import read_checkpoint
from mmdla.config_types import resolve_type
from mmdla.engine.config import check_weights, explain_mismatch, register_host_modules
from mmdla.errors import InputError

TASKS = dict(mmdet='detection', mmpretrain='classification')


def task_of(cfg: Config) -> str:
    """``'detection'`` or ``'classification'``.

    Raises:
        InputError: The config is for another library, or has no ``default_scope``.
    """
    scope = cfg.get('default_scope')
    if scope not in TASKS:
        raise InputError(f'the config must have a default_scope of {list(TASKS)}, it has {scope!r}')
    return TASKS[scope]


def check_device(name: str | None) -> torch.device:
    """Return the device of that name, by default a GPU where there is one.

    Raises:
        InputError: There is no such device.
    """
    try:
        device = torch.device(name or get_device())
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f'--device {name}: cannot be used ({reason})') from error
    return device


def load_model(cfg: Config, checkpoint: str, device: torch.device | str = 'cpu') -> nn.Module:
    """Build the model of a config and load all of its weights.

    Args:
        cfg (Config): Config of a detector or classifier.
        checkpoint (str): File or address.
        device (torch.device): Where the model goes.

    Returns:
        nn.Module: In eval mode, with ``dataset_meta`` (its ``'classes'``, if they are known).

    Raises:
        CheckpointError: The checkpoint cannot be read.
        InputError: It does not fit the model, the model is neither a detector nor a classifier, or
            the library of the config is not installed.
    """
    return load_weights(build_model(cfg), cfg, checkpoint, device)


def build_model(cfg: Config) -> nn.Module:
    """Return the model of a config, as it starts training.

    Raises:
        InputError: It is neither a detector nor a classifier, or its library is not installed.
    """
    task = task_of(cfg)
    register_host_modules(cfg)
    model_cfg = deepcopy(cfg.model)
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = revert_sync_batchnorm(MODELS.build(model_cfg))
    _check_task(model, task)
    return model


def load_weights(
    model: nn.Module, cfg: Config, checkpoint: str, device: torch.device | str = 'cpu'
) -> nn.Module:
    """Load the weights of a model from :func:`build_model`; see :func:`load_model`."""
    state, meta = read_checkpoint(checkpoint)
    check_weights(state, model.state_dict(), checkpoint)
    with explain_mismatch(checkpoint):
        model.load_state_dict(state)
    model.dataset_meta = _dataset_meta(cfg, meta)
    return model.to(device).eval()


def _check_task(model: nn.Module, task: str) -> None:
    if task == 'detection':
        from mmdet.models import BaseDetector as Base
    else:
        from mmpretrain.models import BaseClassifier as Base
    if not isinstance(model, Base):
        kind = 'detector' if task == 'detection' else 'classifier'
        raise InputError(f'the model of the config must be a {kind}, got {type(model).__name__}')


def _dataset_meta(cfg: Config, meta: dict) -> dict:
    """Names (and colours) of the classes: the checkpoint's, else those of the config's data set."""
    known = meta.get('dataset_meta')
    if isinstance(known, dict):
        return {str(key).lower(): value for key, value in known.items()}
    dataset = test_dataset(cfg)
    if not dataset:
        return {}
    kind = resolve_type(dataset['type'], DATASETS, cfg.default_scope)
    found = {**getattr(kind, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    if isinstance(found.get('classes'), str):  # a file that only the data set itself reads
        del found['classes']
    return found
