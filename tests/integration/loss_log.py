"""A hook for configs of tests, which name this module in ``custom_imports``."""

import json
from pathlib import Path

from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module(force=True)
class LossLogHook(Hook):
    """Write ``losses.json``: the loss of every step, the mean over the processes."""

    def before_train(self, runner):
        self.losses = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loss = outputs['loss'].detach().double()
        all_reduce(loss, 'mean')
        self.losses.append(loss.item())

    def after_train_epoch(self, runner):
        if is_main_process():
            Path(runner.work_dir, 'losses.json').write_text(json.dumps(self.losses))
