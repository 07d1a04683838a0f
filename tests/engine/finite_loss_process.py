"""One of two processes of a training in which the second meets a NaN: RANK, FOLDER."""

import math
import os
import sys

import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from toy_training import toy_runner

from mmdla.cli.command_line import run

WRAPPER = dict(type='MMDistributedDataParallel', device_ids=None)  # of CPUs


class Break(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 2 and os.environ['RANK'] == '1':
            data_batch['inputs'][0, 0] = math.nan


def main(argv) -> None:
    torch.distributed.init_process_group('gloo')  # MMEngine's own way asks for a GPU
    runner = toy_runner(
        argv[0],
        hooks=[dict(type='FiniteLossHook')],
        launcher='pytorch',
        cfg=Config(dict(randomness=dict(seed=1), model_wrapper_cfg=WRAPPER)),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1), accumulative_counts=2),
    )
    runner.register_hook(Break())
    try:
        runner.train()
    finally:
        assert runner.iter == 2


if __name__ == '__main__':
    sys.exit(run(main))
