"""From a config file and command-line options to a runner."""

import difflib
import importlib
import inspect
import os
import textwrap
from argparse import Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from torch import Tensor

from mmdla.checkpoint.check import listed, weight_problems
from mmdla.checkpoint.errors import CheckpointError
from mmdla.config_types import import_types, infer_scope
from mmdla.engine.distributed import check_launcher, join_cpu_processes
from mmdla.errors import InputError
from mmdla_command.configs import find_config, suggest

# read from the config by MMEngine or the tools, beside the arguments of Runner
OTHER_KEYS = {
    'activation_checkpointing',
    'compile',
    'detect_anomalous_params',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
    'tta_model',
    'tta_pipeline',
}

HOSTS = ('mmdet', 'mmpretrain', 'mmseg', 'mmrotate', 'mmpose')


def read_config(config: str, options: dict | None = None) -> Config:
    """Read a config file and merge ``--cfg-options`` into it.

    Args:
        config (str): Path of the file, or the name of a shipped config.
        options (dict, optional): Settings to override, by dotted names.

    Raises:
        InputError: The file is not there, or an option names nothing.
    """
    path = find_config(config)
    if not path.is_file():
        hint = _similar_file(path) or suggest(config)
        raise InputError(f'no config file {path} (in {Path.cwd()}){hint}')
    try:
        cfg = Config.fromfile(path)
        import_types(cfg.values())
    except ImportError as error:
        raise InputError(f'{path} needs a package that cannot be imported: {error}') from error
    if options:
        apply_options(cfg, options)
    if cfg.get('default_scope') is None and (scope := infer_scope(cfg)) is not None:
        cfg.default_scope = scope
    return cfg


def load_config(args: Namespace) -> Config:
    """Read ``args.config`` and apply the common options.

    Raises:
        InputError: The file is not there, an option names nothing, or the launcher is another one.
    """
    cfg = read_config(args.config, args.cfg_options)
    check_launcher(args.launcher)
    cfg.launcher = args.launcher
    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))
    return cfg


def apply_options(cfg: Config, options: dict) -> None:
    """Merge ``--cfg-options`` into ``cfg``.

    MMEngine adds keys that it does not know without a word; here the first part of a key must
    be in the config or mean something to the runner. Deeper parts may be new: they are arguments,
    and who gets them refuses what it does not know.

    Raises:
        InputError: A key leads nowhere.
    """
    known = set(cfg.keys()) | set(inspect.signature(Runner).parameters) | OTHER_KEYS
    for key in options:
        first = key.split('.')[0]
        if first not in known:
            raise InputError(
                f'--cfg-options {key}: the config has no {first!r}{_suggest(first, known)}'
            )
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError) as error:
        raise InputError(f'--cfg-options: {error.args[0]}') from error


def build_runner(cfg: Config) -> Runner:
    """Build the runner, as the host libraries' tools do.

    Raises:
        InputError: The library that the config is written for is not installed, or the other
            processes of the job did not come.
    """
    register_host_modules(cfg)
    if cfg.get('launcher', 'none') != 'none' and get_device() == 'cpu':
        join_cpu_processes(cfg)
    return RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)


def register_host_modules(cfg: Config) -> None:
    """Register the modules of the library that a config is written for.

    Raises:
        InputError: It is not installed.
    """
    scope = cfg.get('default_scope')
    if scope not in HOSTS:
        return
    try:
        utils = importlib.import_module(f'{scope}.utils')
        if scope == 'mmdet':
            utils.setup_cache_size_limit_of_dynamo()
        utils.register_all_modules(init_default_scope=False)
    except ImportError as error:
        raise InputError(f'the config needs {scope}, which cannot be imported: {error}') from error


def set_classification_defaults(cfg: Config, loaders: Iterable[str]) -> None:
    """Give MMPretrain's dataloaders what its own tools give them, detection ones are complete."""
    if cfg.get('default_scope') != 'mmpretrain':
        return
    for name in loaders:
        loader = cfg.get(name)
        if loader is not None:
            loader.setdefault('collate_fn', dict(type='default_collate'))
            loader.setdefault('pin_memory', get_device() != 'cpu')
            loader.setdefault('persistent_workers', loader.get('num_workers', 0) > 0)


def check_checkpoint(option: str, path: str) -> None:
    """Refuse a checkpoint on disk that is not there; addresses (``https://``) pass.

    Raises:
        InputError: There is no such file.
    """
    if Path(path).is_dir():
        raise InputError(f'{option}: {path} is a folder, not a checkpoint file')
    if '://' not in path and not Path(path).is_file():
        raise InputError(f'{option}: no checkpoint file {path}{_similar_file(Path(path))}')


def check_work_dir(path: str) -> None:
    """Refuse a folder for logs and checkpoints that cannot be written; nothing is created.

    Raises:
        InputError: It is a file, or it or the folder that it would be made in is read-only.
    """
    folder = Path(path).absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise InputError(f'--work-dir {path}: {folder} is not a folder')
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f'--work-dir {path}: {folder} cannot be written to')


@contextmanager
def explain_mismatch(path: str) -> Iterator[None]:
    """Say of which checkpoint it is what the strict loading inside finds missing or left over.

    Raises:
        CheckpointError: The file cannot be read.
        InputError: It does not fit the model.
    """
    try:
        yield
    except (CheckpointError, RuntimeError, AttributeError, KeyError, TypeError) as error:
        if isinstance(error, CheckpointError) and str(path) in str(error):
            raise  # of the file, not of what is in it
        lines = [textwrap.shorten(line, 300) for line in str(error).splitlines() if line.strip()]
        raise InputError(
            f'checkpoint {path} cannot be used with this config:\n' + '\n'.join(lines[:12])
        ) from error


def check_weights(state: dict[str, Tensor], own: dict[str, Tensor], path: str) -> None:
    """Refuse weights that PyTorch would load without a word: NaN, other kinds of numbers.

    Args:
        state (dict): Weights of a checkpoint.
        own (dict): State dict of the model; names that only one of both has are not looked at.
        path (str): The checkpoint.

    Raises:
        InputError: There are such weights.
    """
    if problems := listed(weight_problems(state, own)):
        raise InputError(
            f'checkpoint {path} cannot be used with this config:\n' + '\n'.join(problems)
        )


def _suggest(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, sorted(known), n=1)
    return f', did you mean {close[0]!r}?' if close else ''


def _similar_file(path: Path) -> str:
    if not path.parent.is_dir():
        return ''
    files = {p.name for p in path.parent.iterdir() if p.suffix == path.suffix}
    return _suggest(path.name, files)
