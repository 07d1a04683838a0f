"""Change a config so that training can be interrupted and trusted, as ``mmdla train`` does."""

from collections.abc import Callable

from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from mmdla.checkpoint.errors import CheckpointError
from mmdla.checkpoint.integrity import latest_valid_checkpoint, verify_checkpoint
from mmdla.config_types import resolve_type
from mmdla.errors import InputError

from .atomic_checkpoint import checkpoint_folder
from .config import check_checkpoint
from .epoch_seed import EpochSeedHook
from .finite_loss import FiniteLossHook
from .validation_check import ValidationCheckHook

ATOMIC = 'mmdla.engine.AtomicCheckpointHook'
FINITE = 'mmdla.engine.FiniteLossHook'
EPOCH_SEED = 'mmdla.engine.EpochSeedHook'
VAL_CHECK = 'mmdla.engine.ValidationCheckHook'


def use_atomic_checkpoints(cfg: Config) -> None:
    """Let :class:`~mmdla.engine.AtomicCheckpointHook` stand in for MMEngine's, if that is used."""
    hooks = _default_hooks(cfg)
    hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    hook = hooks['checkpoint']
    if isinstance(hook, dict) and resolve_type(hook.get('type'), HOOKS) is CheckpointHook:
        hook['type'] = ATOMIC


def use_finite_loss(cfg: Config) -> None:
    """Add :class:`~mmdla.engine.FiniteLossHook`, unless the config names it itself.

    ``default_hooks.finite_loss=None`` leaves it out.
    """
    _add_hook(cfg, 'finite_loss', FINITE, FiniteLossHook)


def use_validation_check(cfg: Config) -> None:
    """Add :class:`~mmdla.engine.ValidationCheckHook`, unless the config names it itself.

    ``default_hooks.val_check=None`` leaves it out.
    """
    _add_hook(cfg, 'val_check', VAL_CHECK, ValidationCheckHook)


def use_exact_resume(cfg: Config) -> None:
    """Set what an interrupted and resumed run needs to end in the weights of one that ran through.

    Raises:
        InputError: The training counts iterations, or saves checkpoints within epochs.
    """
    if not (cfg.get('train_cfg') or {}).get('by_epoch', True):
        raise InputError('--exact-resume needs training by epochs (train_cfg.by_epoch=True)')
    hook = _default_hooks(cfg).get('checkpoint') or {}
    if not hook.get('by_epoch', True):
        raise InputError(
            '--exact-resume needs checkpoints at the end of epochs, '
            'got default_hooks.checkpoint.by_epoch=False'
        )
    cfg.setdefault('randomness', dict(seed=None))
    randomness = cfg.randomness
    if randomness.get('seed') is None:
        randomness['seed'] = 0
    randomness['deterministic'] = True
    cfg.train_dataloader['persistent_workers'] = False
    if not _has_hook(cfg, EpochSeedHook):
        _default_hooks(cfg)['epoch_seed'] = dict(type=EPOCH_SEED)


def resume_from(cfg: Config, path: str, tell: Callable[[str], object]) -> None:
    """Set what ``--resume`` asks for.

    Without checkpoints the training starts as if it had never run, from ``load_from`` if the
    config has one.

    Args:
        cfg (Config): The config, with ``work_dir``.
        path (str): A checkpoint, or ``'auto'``: the newest valid one of the work folder.
        tell (Callable): Is told what was passed over and why.

    Raises:
        InputError: The checkpoint is not there or damaged, or all of those in the work folder are.
    """
    if path == 'auto':
        hook = _default_hooks(cfg).get('checkpoint') or {}
        template = 'epoch_{}.pth' if hook.get('by_epoch', True) else 'iter_{}.pth'
        folder = checkpoint_folder(cfg.work_dir, hook.get('out_dir'))
        try:
            found = latest_valid_checkpoint(
                cfg.work_dir, folder, hook.get('filename_tmpl') or template, tell
            )
        except CheckpointError as error:
            raise InputError(f'--resume: {error}') from error
        if found is None:
            tell(f'no checkpoint in {folder} yet, the training starts from the beginning')
            cfg.resume = False
            return
        path = str(found)
    else:
        check_checkpoint('--resume', path)
        if '://' not in path and (damage := verify_checkpoint(path)):
            raise InputError(f'--resume: {path}: {damage}')
    cfg.resume = True
    cfg.load_from = path


def _default_hooks(cfg: Config) -> dict:
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    return cfg.default_hooks


def _add_hook(cfg: Config, key: str, name: str, kind: type) -> None:
    hooks = _default_hooks(cfg)
    if key in hooks and hooks[key] is None:
        del hooks[key]  # MMEngine knows None for hooks of its own only
    elif not _has_hook(cfg, kind):
        hooks.setdefault(key, dict(type=name))


def _has_hook(cfg: Config, wanted: type) -> bool:
    """Return whether the config names such a hook, by name, by class or as an object."""
    hooks = [*(cfg.get('custom_hooks') or []), *_default_hooks(cfg).values()]
    kinds = [
        resolve_type(hook.get('type'), HOOKS) if isinstance(hook, dict) else type(hook)
        for hook in hooks
    ]
    return any(isinstance(kind, type) and issubclass(kind, wanted) for kind in kinds)
