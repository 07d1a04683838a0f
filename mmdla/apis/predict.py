"""Predictions of a trained model for images, drawn and as plain data.

The inferencers of the hosts accept weights that do not fit, and stop at the first damaged image.
"""

from collections.abc import Sequence
from typing import Any

import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import VISUALIZERS, DefaultScope
from mmengine.structures import BaseDataElement

from mmdla.apis.inputs import UnreadableError
from mmdla.apis.model import load_model, task_of
from mmdla.apis.pipeline import ImagePipeline

VISUALIZER_TYPES = dict(detection='DetLocalVisualizer', classification='UniversalVisualizer')
TOP = 5  # classes that are listed for an image
LEGIBLE = 224  # smaller images are enlarged for the class to be written on them


class Predictor:
    """A detector or classifier with the test pipeline of its config.

    Args:
        cfg (Config): Config of a detector or classifier.
        checkpoint (str): Its weights.
        device (torch.device): Where it runs.
        score_thr (float): Detections below this score are left out.

    Raises:
        InputError: The config has no test pipeline, or the checkpoint does not fit.
    """

    def __init__(
        self, cfg: Config, checkpoint: str, device: torch.device, score_thr: float = 0.3
    ) -> None:
        self.task = task_of(cfg)
        self.score_thr = score_thr
        self.model = load_model(cfg, checkpoint, device)
        self.meta = self.model.dataset_meta
        self.pipeline = ImagePipeline(cfg)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            drawing = dict(cfg.get('visualizer') or dict(type=VISUALIZER_TYPES[self.task]))
            drawing.update(name='predictions', vis_backends=None)
            self.visualizer = VISUALIZERS.build(drawing)
        self.visualizer.dataset_meta = self.meta

    def __call__(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        """Return predictions for images (H, W, 3), BGR, 8 bit, computed as one batch.

        Raises:
            UnreadableError: The pipeline or the model cannot take one of them.
        """
        return self.predict([self.pipeline(image) for image in images])

    @torch.no_grad()
    def predict(self, data: Sequence[dict]) -> list[BaseDataElement]:
        """Return predictions for what :attr:`pipeline` has made of images, as one batch.

        Raises:
            UnreadableError: The model cannot take one of them.
        """
        try:
            return self._predict(data)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise UnreadableError(f'the model cannot take it ({reason})') from error

    def _predict(self, data: Sequence[dict]) -> list[BaseDataElement]:
        shapes = {item['inputs'].shape for item in data}
        if self.task == 'classification' and len(shapes) > 1:  # padding would change them
            return [self.model.test_step(pseudo_collate([item]))[0] for item in data]
        return self.model.test_step(pseudo_collate(data))

    def draw(self, image: np.ndarray, sample: BaseDataElement) -> np.ndarray:
        """Return the image with boxes and masks, or with its class; (H, W, 3), BGR."""
        rgb = mmcv.bgr2rgb(image)
        if self.task == 'detection':
            self.visualizer.add_datasample(
                'picture', rgb, sample, draw_gt=False, pred_score_thr=self.score_thr
            )
        else:
            resize = LEGIBLE if min(rgb.shape[:2]) < LEGIBLE else None
            classes = self.meta.get('classes')
            self.visualizer.visualize_cls(rgb, sample, classes, draw_gt=False, resize=resize)
        return mmcv.rgb2bgr(self.visualizer.get_image())

    def as_data(self, sample: BaseDataElement) -> list[dict]:
        """Detections above the threshold, or the likeliest classes, as JSON can hold them.

        Detections have ``bbox`` (x1, y1, x2, y2 in pixels of the image), ``label``, ``class``
        (its name), ``score`` and, with masks, ``mask`` (COCO's RLE); classes all but the box.
        """
        if self.task == 'classification':
            scores, labels = sample.pred_score.topk(min(TOP, sample.pred_score.numel()))
            return [self._entry(*pair) for pair in zip(labels, scores, strict=True)]
        found = sample.pred_instances
        found = found[found.scores >= self.score_thr].cpu()
        entries = [self._entry(*pair) for pair in zip(found.labels, found.scores, strict=True)]
        for entry, box in zip(entries, found.bboxes.tolist(), strict=True):
            entry['bbox'] = [round(v, 2) for v in box]
        if 'masks' in found:
            from mmdet.structures.mask import encode_mask_results

            for entry, mask in zip(entries, encode_mask_results(found.masks.numpy()), strict=True):
                entry['mask'] = dict(size=list(mask['size']), counts=mask['counts'].decode())
        return entries

    def _entry(self, label: Any, score: Any) -> dict:
        names = self.meta.get('classes') or ()
        name = names[int(label)] if int(label) < len(names) else str(int(label))
        return {'label': int(label), 'class': name, 'score': round(float(score), 4)}
