"""Processes that train together, on machines without a GPU too.

On GPUs this is MMEngine's own work. Without one MMEngine stops, since it selects a GPU for every
process and its default backend, NCCL, knows nothing else.
"""

import logging
import os
from unittest import mock

import torch
from mmengine.config import Config
from mmengine.dist import init_dist, is_distributed
from mmengine.logging import print_log
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODEL_WRAPPERS
from mmengine.utils.dl_utils import set_multi_processing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmdla.config_types import resolve_type, type_name
from mmdla.errors import InputError

# what MMEngine reads to find the other processes
VARIABLES = dict(
    pytorch=('RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT'),
    slurm=('SLURM_PROCID', 'SLURM_NTASKS', 'SLURM_NODELIST'),
    mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_SIZE', 'MASTER_ADDR'),
)
# the rank of a process on its machine, as every launcher names it
LOCAL_RANK = dict(
    pytorch='LOCAL_RANK', slurm='SLURM_LOCALID', mpi='OMPI_COMM_WORLD_LOCAL_RANK', none=None
)
STARTERS = dict(
    pytorch='tools/dist_train.sh, tools/dist_test.sh or torchrun',
    slurm='tools/slurm_train.sh, tools/slurm_test.sh or srun',
    mpi='mpirun',
)
DDP = 'MMDistributedDataParallel'


@MODEL_WRAPPERS.register_module()
class CPUDistributedDataParallel(MMDistributedDataParallel):
    """:class:`MMDistributedDataParallel` of a model on the CPU.

    Synchronized batch norm exists for GPUs only: it becomes batch norm, with a warning.

    Args:
        module (nn.Module): The model.
        **kwargs: As :class:`MMDistributedDataParallel`.
    """

    def __init__(self, module: nn.Module, **kwargs) -> None:
        before = _count_batch_norms(module)
        module = revert_sync_batchnorm(module)
        if reverted := _count_batch_norms(module) - before:
            print_log(
                f'{reverted} synchronized batch norms became batch norms, whose statistics are '
                'those of each process alone: there is no synchronized batch norm for the CPU',
                logger='current',
                level=logging.WARNING,
            )
        super().__init__(module, **kwargs)


def check_launcher(launcher: str) -> None:
    """Refuse a launcher that has not started this process, or without a GPU for it.

    Args:
        launcher (str): ``'pytorch'``, ``'slurm'``, ``'mpi'`` or ``'none'``.

    Raises:
        InputError: Environment variables are missing, or the machine has too few GPUs.
    """
    missing = [name for name in VARIABLES.get(launcher, ()) if name not in os.environ]
    if missing:
        raise InputError(
            f'--launcher {launcher}: {", ".join(missing)} not set in the environment, so the '
            f'processes were not started by {STARTERS[launcher]}'
        )
    if launcher == 'none' or not torch.cuda.is_available():
        return
    local_rank, gpus = int(os.environ.get(LOCAL_RANK[launcher], 0)), torch.cuda.device_count()
    if local_rank >= gpus:
        raise InputError(
            f'more than {gpus} processes on a machine with {gpus} GPUs: every process needs a GPU '
            'of its own (CUDA_VISIBLE_DEVICES=-1 lets them run on the CPU)'
        )


def join_cpu_processes(cfg: Config) -> None:
    """Let the processes of a job on CPUs find each other, and prepare the config for it.

    NCCL, the default backend, becomes gloo; another one of the config stays. The model's wrapper
    becomes :class:`CPUDistributedDataParallel` unless the config has a wrapper of its own.

    Args:
        cfg (Config): A complete config; changed in place.

    Raises:
        InputError: The other processes did not come, or the strategy needs GPUs.
    """
    cfg.setdefault('env_cfg', {})
    cfg.env_cfg.setdefault('dist_cfg', {})
    group = cfg.env_cfg.dist_cfg
    if group.get('backend', 'nccl') == 'nccl':
        group.backend = 'gloo'
    _wrap_for_cpu(cfg)
    if is_distributed():
        return
    # as the runner does, and before init_dist, which would choose another way to start workers
    set_multi_processing(**cfg.env_cfg.get('mp_cfg', {}), distributed=True)
    try:
        with mock.patch.object(torch.cuda, 'set_device'):  # MMEngine would select a GPU
            init_dist(cfg.launcher, **group)
    except RuntimeError as error:
        seconds = group.get('timeout')
        raise InputError(
            f'the processes of this job did not find each other: {str(error).splitlines()[0]} '
            f'(env_cfg.dist_cfg.timeout: {seconds or "the default"} seconds)'
        ) from error


def _wrap_for_cpu(cfg: Config) -> None:
    """Fill in the wrapper of the model where MMEngine's would name a GPU."""
    strategy = cfg.get('strategy')
    if strategy is None:
        find_unused = cfg.get('find_unused_parameters', False)
        default = dict(broadcast_buffers=False, find_unused_parameters=find_unused)
        cfg.model_wrapper_cfg = cfg.get('model_wrapper_cfg') or default
        wrapper = cfg.model_wrapper_cfg
    elif type_name(strategy.get('type')) == 'DDPStrategy':
        strategy.model_wrapper = strategy.get('model_wrapper') or dict(broadcast_buffers=False)
        wrapper = strategy.model_wrapper
    elif type_name(strategy.get('type')) == 'FSDPStrategy':
        raise InputError('strategy FSDPStrategy needs GPUs: on CPUs its processes crash')
    else:
        return
    if type_name(wrapper.get('type', DDP)) == DDP:
        wrapper.type = 'CPUDistributedDataParallel'
    kind = resolve_type(wrapper.type, MODEL_WRAPPERS)
    if isinstance(kind, type) and issubclass(kind, DistributedDataParallel):
        wrapper.setdefault('device_ids', None)


def _count_batch_norms(module: nn.Module) -> int:
    """Batch norms that are not synchronized."""
    return sum(
        isinstance(m, nn.modules.batchnorm._BatchNorm) and 'Sync' not in type(m).__name__
        for m in module.modules()
    )
