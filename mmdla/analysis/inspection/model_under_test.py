"""A trained model with all that is needed to show it an image."""

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.device import get_device
from torch import Tensor

from mmdla.apis.inputs import IMAGE_SUFFIXES, SUFFIXES, read_image
from mmdla.apis.model import build_model, load_weights, task_of
from mmdla.apis.pipeline import ImagePipeline
from mmdla.errors import InputError

from .recording import find_backbone, make_recorders

TOP = 5  # classes that a classifier names


@dataclass(frozen=True)
class Prediction:
    """A class of a classifier, or an object of a detector with its box (x1, y1, x2, y2)."""

    label: str
    score: float
    box: tuple[float, ...] | None = None


class ModelUnderTest:
    """A detector or classifier, in eval mode on MMEngine's device.

    Args:
        cfg (Config): Of MMDetection or MMPretrain, with a backbone of ours.
        checkpoint (str): Its weights; read without running code that may be in it.
        score (float): Detections below are not kept.
        backbone (str, optional): Which of several backbones, see :func:`find_backbones`.

    Raises:
        InputError: The config is neither of a detector nor of a classifier or has no test
            pipeline, the checkpoint does not fit, or the backbone has no layer attention to show.
        CheckpointError: The checkpoint cannot be read.
    """

    def __init__(
        self, cfg: Config, checkpoint: str, score: float = 0.3, backbone: str | None = None
    ) -> None:
        self.is_detector = task_of(cfg) == 'detection'
        self.score = score
        self.pipeline = ImagePipeline(cfg)
        model = build_model(cfg)
        try:
            self.backbone = find_backbone(model, backbone)
            make_recorders(self.backbone)
        except ValueError as error:
            raise InputError(str(error)) from error
        self.model = load_weights(model, cfg, checkpoint, get_device())
        self.classes = self.model.dataset_meta.get('classes') or ()

    @property
    def default_layers(self) -> list[str]:
        """What the rest of the model gets: a classifier's last stage, a detector's levels."""
        prefix = next(n for n, m in self.model.named_modules() if m is self.backbone)
        stages = [f'{prefix}.layer{i + 1}' for i in sorted(set(self.backbone.out_indices))]
        return stages if self.is_detector else stages[-1:]

    def prepare(self, path: Path) -> tuple[dict, np.ndarray]:
        """Return a batch of one image, and the image as the network gets it, RGB (H, W, 3) uint8.

        Raises:
            UnreadableError: The file is not there or damaged, or the pipeline cannot take it.
        """
        data = pseudo_collate([self.pipeline(read_image(path))])
        return data, self._image(data['inputs'][0])

    def _image(self, inputs: Tensor) -> np.ndarray:
        image = inputs.permute(1, 2, 0).cpu().numpy()  # (H, W, 3)
        if image.dtype != np.uint8:  # a pipeline that normalizes
            low, high = image.min(), image.max()
            image = np.uint8(255 * (image - low) / max(high - low, 1e-12))
        return image if self.pipeline.takes_rgb else np.ascontiguousarray(image[..., ::-1])

    @torch.no_grad()
    def find(self, data: dict) -> list[Prediction]:
        """Return what the model says, the surest first."""
        if not self.is_detector:
            scores = self.model.test_step(copy.deepcopy(data))[0].pred_score
            top = scores.topk(min(TOP, len(scores)))
            pairs = zip(top.values.tolist(), top.indices.tolist(), strict=True)
            return [Prediction(self.label(i), score) for score, i in pairs]
        instances = self._instances(data)
        rows = (instances[key].tolist() for key in ('scores', 'labels', 'bboxes'))
        return [
            Prediction(self.label(i), score, tuple(box))
            for score, i, box in sorted(zip(*rows, strict=True), reverse=True)
        ]

    def target(self, data: dict) -> Tensor | None:
        """Run the model; the score of the highest class, or the sum of those of what is kept.

        The heads of one-stage detectors cut the graph before they remove duplicates; there it is
        the sum of all class scores (sigmoids) that are high enough, with those of the duplicates.
        ``None`` where nothing is kept, or where the scores depend on no feature by autograd.
        """
        if self.is_detector:
            dense: list[tuple] = []
            head = getattr(self.model, 'bbox_head', None)  # of one-stage detectors
            with ExitStack() as stack:
                if getattr(head, 'use_sigmoid_cls', False):
                    handle = head.register_forward_hook(lambda _m, _args, out: dense.append(out))
                    stack.callback(handle.remove)
                scores = self._instances(data).scores
            if scores.numel() and not scores.requires_grad and dense:
                every = torch.cat([s.sigmoid().flatten() for s in dense[0][0]])  # all levels
                scores = every[every >= self.score]
            return scores.sum() if scores.requires_grad and scores.numel() else None
        inputs = self.model.data_preprocessor(copy.deepcopy(data), False)['inputs']
        logits = self.model(inputs, mode='tensor')
        if not (isinstance(logits, Tensor) and logits.ndim == 2):
            kind = type(getattr(self.model, 'head', self.model)).__name__
            raise InputError(f'the head of the model must give one score a class, {kind} does not')
        return logits[0].max()

    def label(self, index: int) -> str:
        return self.classes[index] if index < len(self.classes) else f'class {index}'

    def _instances(self, data: dict):
        """Detections that are kept, with boxes on the image as the network gets it."""
        data = self.model.data_preprocessor(copy.deepcopy(data), False)
        samples = self.model.predict(data['inputs'], data['data_samples'], rescale=False)
        instances = samples[0].pred_instances
        return instances[instances.scores >= self.score]


def find_images(paths: Sequence[str]) -> list[Path]:
    """Return files, and the images in folders in the order of their names.

    Raises:
        InputError: A folder holds no image.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise InputError(f'{path}: no image in this folder ({SUFFIXES})')
            found += inside
        else:
            found.append(path)
    return found
