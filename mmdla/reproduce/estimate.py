"""Time and memory that a training takes, computed from counts."""

from dataclasses import dataclass

import torch
from mmengine.config import Config
from torch import nn

from mmdla.analysis.complexity import build_on_meta, measure, run_detector
from mmdla.analysis.memory import saved_bytes

DETECTOR_SIZE = (800, 1344)  # COCO's scale of (1333, 800), padded to multiples of 32
FLOAT = 4  # bytes
STATES = dict(SGD=1, AdamW=2, Adam=2)  # copies of the parameters that an optimizer keeps


@dataclass(frozen=True)
class Counts:
    """What the estimates of a model are made of.

    Args:
        parameters (int): ``P``, all of them.
        learning (int): ``L``, those that are not frozen.
        macs (int): ``M``, multiply-adds of one image in a forward pass.
        saved (int): ``A``, bytes that one image adds to what is kept for the backward pass.
        states (int): ``S``, copies of the learning parameters in the optimizer.
        epochs (int): ``E``, of the schedule.
        validations (int): ``V``, how often the held-out part is gone through.
    """

    parameters: int
    learning: int
    macs: int
    saved: int
    states: int
    epochs: int
    validations: int

    def hours(self, train: int, val: int, gpus: int, tflops: float) -> float:
        """``(3·E·train + V·val) · 2·M / (gpus · tflops · 10^12)`` seconds, in hours.

        A backward pass counts as two forward passes and a multiply-add as two operations.

        Args:
            train (int): Images of the training part.
            val (int): Images of the held-out part.
            gpus (int): GPUs that share the work.
            tflops (float): 10^12 operations a second that one GPU attains: an assumption.
        """
        passes = 3 * self.epochs * train + self.validations * val
        return passes * 2 * self.macs / (gpus * tflops * 1e12) / 3600

    def gigabytes(self, batch: int, gpus: int) -> float:
        """``4·(P + (1 + S + D)·L) + batch·A`` bytes on one GPU, in GB (2^30 bytes).

        Parameters, gradients, the optimizer's states and, with several GPUs (``D = 1``), the
        gradients' copy for the exchange; then what is kept for the backward pass.

        Args:
            batch (int): Images a GPU.
            gpus (int): GPUs in all.
        """
        copies = 1 + self.states + (gpus > 1)
        return (FLOAT * (self.parameters + copies * self.learning) + batch * self.saved) / 2**30


def count(cfg: Config, size: tuple[int, int] | None = None) -> Counts:
    """Count the model of a config on the meta device, where nothing is computed.

    Args:
        cfg (Config): The config.
        size (tuple[int, int], optional): Height and width of an image. Default: that of COCO's
            recipe for detectors, that of the kind of model for others.
    """
    detector_size = size or DETECTOR_SIZE
    size = measure(cfg, size)
    model = build_on_meta(cfg).train()
    optimizer = cfg.optim_wrapper.optimizer
    states = STATES[optimizer.type] if optimizer.get('momentum', True) else 0
    epochs, interval = cfg.train_cfg.max_epochs, cfg.train_cfg.get('val_interval', 1)
    return Counts(
        parameters=size.parameters,
        learning=sum(p.numel() for p in model.parameters() if p.requires_grad),
        macs=size.macs,
        saved=saved_by_an_image(cfg, model, size.size, detector_size),
        states=states,
        epochs=epochs,
        validations=-(-epochs // interval),
    )


def saved_by_an_image(
    cfg: Config, model: nn.Module, size: tuple[int, int], detector_size: tuple[int, int]
) -> int:
    """Bytes kept for the backward pass, of two images (batch norm needs them), halved.

    The reference operations are counted, which run on every device; compiled kernels keep less.
    Losses, the anchors' targets and the memory that a single layer takes for a moment are not in.
    """
    batch = 2
    if cfg.default_scope != 'mmdet':
        images = torch.empty(batch, 3, *size, device='meta')
        return saved_bytes(model, lambda: model.head(model.extract_feat(images))) // batch
    images = torch.empty(batch, 3, *detector_size, device='meta')
    boxes = masks = 0
    if hasattr(model, 'roi_head'):
        sampler = cfg.model.train_cfg.rcnn.sampler
        boxes = batch * sampler.num
        masks = int(boxes * sampler.pos_fraction)
    return saved_bytes(model, lambda: run_detector(model, images, boxes, masks)) // batch
