"""Images on their way to a model, as the test data set of its config prepares them."""

from copy import deepcopy
from typing import Any

import mmcv
import numpy as np
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope

from mmdla.apis.inputs import UnreadableError
from mmdla.config_types import type_name
from mmdla.errors import InputError

NOT_FOR_ARRAYS = ('LoadImageFromFile', 'LoadAnnotations', 'LoadPanopticAnnotations')


class ImagePipeline:
    """The test pipeline of a config, for images that have been read.

    Args:
        cfg (Config): Config of a detector or classifier.

    Raises:
        InputError: The config has no test pipeline.
    """

    def __init__(self, cfg: Config) -> None:
        steps = deepcopy(test_dataset(cfg).get('pipeline'))
        if not steps:
            raise InputError('the config has no test_dataloader.dataset.pipeline')
        loaders = [step for step in steps if type_name(step['type']) == 'LoadImageFromFile']
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            self.steps = Compose([s for s in steps if type_name(s['type']) not in NOT_FOR_ARRAYS])
        # data sets that need no loader, those of CIFAR, hand out RGB
        self.takes_rgb = not loaders
        self.takes_float = bool(loaders) and loaders[0].get('to_float32', False)

    def __call__(self, image: np.ndarray) -> dict:
        """Return what the data set gives for an image (H, W, 3), BGR, 8 bit.

        Raises:
            UnreadableError: The pipeline cannot take it, e.g. one that becomes 0 pixels wide.
        """
        size = image.shape[:2]
        if self.takes_rgb:
            image = mmcv.bgr2rgb(image)
        if self.takes_float:
            image = image.astype(np.float32)
        results = dict(img=image, img_shape=size, ori_shape=size, img_path=None, img_id=0)
        try:
            data = self.steps(results)
        except Exception as error:  # of OpenCV, of a transform, of an assertion
            reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
            raise UnreadableError(_of_size(size, reason)) from error
        if data is None:
            raise UnreadableError(_of_size(size, 'it is filtered out'))
        return data


def _of_size(size: tuple[int, int], reason: str) -> str:
    return f'an image of {size[1]}x{size[0]} pixels that the test pipeline cannot take ({reason})'


def test_dataset(cfg: Config) -> dict:
    """Return the test data set, the first one inside of ``ConcatDataset`` and the like."""
    dataset: Any = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    while inner := dataset.get('datasets') or dataset.get('dataset'):
        dataset = inner[0] if isinstance(inner, (list, tuple)) else inner
    return dataset
