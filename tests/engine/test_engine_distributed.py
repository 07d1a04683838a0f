"""How processes without a GPU find each other, and what is refused."""

import socket

import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from torch import distributed, nn

from mmdla.engine.distributed import (
    CPUDistributedDataParallel,
    check_launcher,
    join_cpu_processes,
)
from mmdla.errors import InputError


def free_port() -> int:
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


@pytest.fixture
def environment(monkeypatch):
    """Variables of rank 0, as each launcher sets them; the process group is closed afterwards."""

    def set_variables(launcher, world_size=1):
        names = dict(
            pytorch=('RANK', 'LOCAL_RANK', 'WORLD_SIZE'),
            slurm=('SLURM_PROCID', 'SLURM_LOCALID', 'SLURM_NTASKS'),
            mpi=('OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK', 'OMPI_COMM_WORLD_SIZE'),
        )[launcher]
        for name, value in zip(names, (0, 0, world_size), strict=True):
            monkeypatch.setenv(name, str(value))
        for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE'):  # MMEngine writes them
            monkeypatch.setenv(name, '0' if name != 'WORLD_SIZE' else str(world_size))
        monkeypatch.setenv('SLURM_NODELIST', 'node')
        monkeypatch.setenv('MASTER_ADDR', '127.0.0.1')
        monkeypatch.setenv('MASTER_PORT', str(free_port()))

    yield set_variables
    if distributed.is_initialized():
        distributed.destroy_process_group()


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm', 'mpi'])
def test_every_launcher_works_without_a_gpu(environment, launcher):
    environment(launcher)
    cfg = Config(dict(launcher=launcher, env_cfg=dict(dist_cfg=dict(backend='nccl'))))
    join_cpu_processes(cfg)
    assert distributed.get_backend() == 'gloo'
    assert cfg.env_cfg.dist_cfg.backend == 'gloo'
    join_cpu_processes(cfg)  # a second runner in the same process


def test_a_process_that_never_comes(environment):
    environment('pytorch', world_size=2)
    cfg = Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=dict(timeout=1))))
    with pytest.raises(InputError, match=r'did not find each other.*1/2 clients.*timeout: 1 sec'):
        join_cpu_processes(cfg)


@pytest.mark.parametrize(
    'given, expected',
    [
        ({}, dict(broadcast_buffers=False, find_unused_parameters=False)),
        (
            dict(find_unused_parameters=True),
            dict(broadcast_buffers=False, find_unused_parameters=True),
        ),
        (dict(model_wrapper_cfg=dict(static_graph=True)), dict(static_graph=True)),
    ],
)
def test_the_wrapper_keeps_what_the_config_says(environment, given, expected):
    environment('pytorch')
    cfg = Config(dict(launcher='pytorch', **given))
    join_cpu_processes(cfg)
    ours = dict(type='CPUDistributedDataParallel', device_ids=None)
    assert cfg.model_wrapper_cfg == dict(**expected, **ours)


def test_backend_and_wrapper_of_the_config_stay(environment):
    environment('pytorch')
    wrapper = dict(type='MMSeparateDistributedDataParallel', broadcast_buffers=False)
    group = dict(backend='cpu:gloo')
    cfg = Config(dict(launcher='pytorch', env_cfg=dict(dist_cfg=group), model_wrapper_cfg=wrapper))
    join_cpu_processes(cfg)
    assert cfg.env_cfg.dist_cfg.backend == 'cpu:gloo'
    assert cfg.model_wrapper_cfg == dict(**wrapper, device_ids=None)


@pytest.mark.parametrize(
    'kind, expected',
    [
        (
            'DDPStrategy',
            dict(type='CPUDistributedDataParallel', broadcast_buffers=False, device_ids=None),
        ),
        ('DeepSpeedStrategy', None),
    ],
)
def test_strategies(environment, kind, expected):
    environment('pytorch')
    cfg = Config(dict(launcher='pytorch', strategy=dict(type=kind)))
    join_cpu_processes(cfg)
    assert cfg.strategy.get('model_wrapper') == expected
    assert 'model_wrapper_cfg' not in cfg


def test_sharded_training_needs_gpus(environment):
    environment('pytorch')
    cfg = Config(dict(launcher='pytorch', strategy=dict(type='FSDPStrategy')))
    with pytest.raises(InputError, match='FSDPStrategy needs GPUs'):
        join_cpu_processes(cfg)
    assert not distributed.is_initialized()


def test_synchronized_batch_norm_becomes_batch_norm_with_a_warning(environment, caplog):
    environment('pytorch')
    join_cpu_processes(Config(dict(launcher='pytorch')))
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SyncBatchNorm(4), nn.BatchNorm2d(4))
    x = torch.randn(2, 3, 5, 5)
    with pytest.raises(ValueError, match='GPU'):  # why it is not kept
        MMDistributedDataParallel(net)(x)
    MMLogger.get_current_instance().addHandler(caplog.handler)
    model = CPUDistributedDataParallel(net)
    assert '1 synchronized batch norm' in caplog.text
    reference = nn.Sequential(net[0], nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    torch.testing.assert_close(model(x), reference(x))


@pytest.mark.parametrize(
    'launcher, variable', [('pytorch', 'RANK'), ('slurm', 'SLURM_NTASKS'), ('mpi', 'MASTER_ADDR')]
)
def test_launcher_that_did_not_start_the_process(environment, launcher, variable, monkeypatch):
    environment(launcher)
    check_launcher(launcher)
    monkeypatch.delenv(variable)
    with pytest.raises(InputError, match=f'{launcher}: {variable} not set'):
        check_launcher(launcher)


def test_more_processes_than_gpus(environment, monkeypatch):
    environment('pytorch')
    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    check_launcher('pytorch')
    check_launcher('none')
    monkeypatch.setenv('LOCAL_RANK', '1')
    check_launcher('pytorch')
    for rank in ('2', '3'):
        monkeypatch.setenv('LOCAL_RANK', rank)
        with pytest.raises(InputError, match='2 GPUs'):
            check_launcher('pytorch')
