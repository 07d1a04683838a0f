"""The command lines that train a row, on one GPU, on one machine, on several, under Slurm."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from mmdla.errors import InputError

from .tables import Row

# a run that was interrupted must end as if it had not been
RESUMABLE = (
    'default_hooks.epoch_seed.type=EpochSeedHook',
    'train_dataloader.persistent_workers=False',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=2',  # one is whole while the next is written
)
PREDICTIONS = 'val'  # <folder>/val.bbox.json: what a detector found in the last validation
GPUS_PER_NODE = 8


@dataclass(frozen=True)
class Plan:
    """How a row is trained.

    Args:
        row (Row): The row.
        seed (int): Its seed.
        folder (Path): Its work folder, absolute or relative to the repository.
        options (tuple[str]): Further options of the user's, ``KEY=VALUE``.
        deterministic (bool): Whether PyTorch may only use deterministic algorithms.
    """

    row: Row
    seed: int
    folder: Path
    options: tuple[str, ...] = ()
    deterministic: bool = False

    def added(self) -> tuple[str, ...]:
        """Options beyond the row's own, without those that depend on the number of GPUs."""
        deterministic = ('randomness.deterministic=True',) if self.deterministic else ()
        kept = f'val_evaluator.outfile_prefix={self.folder}/{PREDICTIONS}'
        predictions = (kept,) if self.row.keeps_predictions else ()
        own = f'randomness.seed={self.seed}', *deterministic, *predictions
        return (*RESUMABLE, *own, *self.options)

    def arguments(self, cfg: Config, gpus: int, resume: Path | None = None) -> list[str]:
        """What follows the config's name on the command line of ``tools/train.py``.

        Args:
            cfg (Config): The config of the row.
            gpus (int): GPUs in all.
            resume (Path, optional): Checkpoint to go on from.
        """
        flags, options = fit_batch(cfg, gpus)
        flags += [] if resume is None else ['--resume', str(resume)]
        work_dir = ['--work-dir', str(self.folder)]
        return [*work_dir, *flags, '--cfg-options', *self.row.options, *self.added(), *options]


def fit_batch(cfg: Config, gpus: int) -> tuple[list[str], list[str]]:
    """Flags and options that keep the config's recipe on another number of GPUs.

    The batch over all GPUs stays what the recipe is for, ``auto_scale_lr.base_batch_size``, where
    that can be: more GPUs get fewer images each, and batch norm that learns is then synchronized.
    Fewer GPUs have a smaller batch, and the learning rate shrinks with it.

    Raises:
        InputError: There are more GPUs than images in the batch, or it cannot be shared evenly.
    """
    own = cfg.train_dataloader.batch_size
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size', own)
    if gpus * own == base:
        return [], []
    if gpus * own < base:
        return ['--auto-scale-lr'], []
    if base % gpus:
        raise InputError(f'a batch of {base} images cannot be shared by {gpus} GPUs')
    options = [f'train_dataloader.batch_size={base // gpus}']
    if not cfg.model.backbone.get('norm_eval', False):
        options.append('sync_bn=torch')
    return [], options


def batch_of_a_gpu(cfg: Config, gpus: int) -> int:
    """Images that a GPU gets."""
    own = cfg.train_dataloader.batch_size
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size', own)
    return min(own, base // gpus)


def command(plan: Plan, cfg: Config, gpus: int, python: str, resume: Path | None) -> list[str]:
    """What is run on this machine, from the repository's folder."""
    rest = plan.arguments(cfg, gpus, resume)
    if gpus == 1:
        return [python, 'tools/train.py', plan.row.config, *rest]
    return ['tools/dist_train.sh', plan.row.config, str(gpus), *rest]


def shell_lines(plan: Plan, cfg: Config, nodes: int) -> dict[str, list[str]]:
    """The same for people: lines for a shell, by the machines that they are for."""
    many = nodes * GPUS_PER_NODE
    config = plan.row.config
    on_nodes, slurm = [], []
    arguments = plan.arguments(cfg, many)
    for rank in range(nodes):
        variables = f'NNODES={nodes} NODE_RANK={rank} MASTER_ADDR=host0'
        line = ['tools/dist_train.sh', config, str(GPUS_PER_NODE), *arguments]
        on_nodes.append(f'{variables} {shlex.join(line)}')
    line = ['tools/slurm_train.sh', 'PARTITION', plan.row.name, config, *arguments]
    slurm.append(f'GPUS={many} GPUS_PER_NODE={GPUS_PER_NODE} {shlex.join(line)}')
    return {
        '1 GPU': [shlex.join(command(plan, cfg, 1, 'python', None))],
        f'{GPUS_PER_NODE} GPUs': [shlex.join(command(plan, cfg, GPUS_PER_NODE, 'python', None))],
        f'{nodes} machines with {GPUS_PER_NODE} GPUs, on each': on_nodes,
        f'Slurm, {many} GPUs': slurm,
    }
