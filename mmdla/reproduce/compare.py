"""Pairwise comparison of two rows of a table: over seeds, and over images by the bootstrap."""

import contextlib
import copy
import io
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from mmdla.errors import InputError

DETECTIONS = 100  # of an image, the limit of COCO's AP
SAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class Difference:
    """What a row has more than another, in the metric's unit, of the seeds that both have.

    Args:
        seeds (tuple[int]): Those seeds.
        mean (float): Mean of the differences.
        deviation (float, optional): Their standard deviation (of the sample, two seeds or more).
        higher (int): Seeds in which the row is ahead.
        interval (tuple[float, float], optional): Of the mean, 95 % of the bootstrap's samples.
    """

    seeds: tuple[int, ...]
    mean: float
    deviation: float | None
    higher: int
    interval: tuple[float, float] | None = None


def over_seeds(ours: dict[int, float], others: dict[int, float]) -> Difference | None:
    """Compare values by seed; None without a seed that both have."""
    seeds = tuple(sorted(ours.keys() & others.keys()))
    if not seeds:
        return None
    each = [ours[seed] - others[seed] for seed in seeds]
    deviation = statistics.stdev(each) if len(each) > 1 else None
    return Difference(seeds, statistics.mean(each), deviation, sum(d > 0 for d in each))


class ImageScores:
    """A detector's AP on any sample of the images of an annotation file.

    Every image is matched once, by COCO's own evaluation, which then sums up those of the sample.

    Args:
        annotations (Path): COCO annotation file.
        predictions (Path): COCO result file, as MMDetection's ``CocoMetric`` writes it.
        iou_type (str): ``'bbox'`` or ``'segm'``.

    Raises:
        InputError: The result file cannot be read.
    """

    def __init__(self, annotations: Path, predictions: Path, iou_type: str) -> None:
        from mmdet.datasets.api_wrappers import COCO, COCOeval

        try:
            found = json.loads(predictions.read_text())
        except (OSError, ValueError) as error:
            raise InputError(f'{predictions}: no predictions of a validation ({error})') from error
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(annotations))
            self.count = len(truth.imgs)
            self.evaluation = None
            if found:
                self.evaluation = COCOeval(truth, truth.loadRes(found), iou_type)
                params = self.evaluation.params
                params.areaRng, params.areaRngLbl = params.areaRng[:1], params.areaRngLbl[:1]
                params.maxDets = [DETECTIONS]
                self.evaluation.evaluate()

    def ap(self, sample: Sequence[int]) -> float:
        """AP in per cent on images by their index, each as often as it is in the sample."""
        if self.evaluation is None:
            return 0.0
        evaluation = copy.copy(self.evaluation)
        # by category, by image, where an image's index is its place in the order of the ids
        images = np.array(self.evaluation.evalImgs, dtype=object).reshape(-1, self.count)
        evaluation.evalImgs = images[:, sample].reshape(-1).tolist()
        evaluation.params = copy.copy(self.evaluation.params)
        evaluation.params.imgIds = list(range(len(sample)))
        evaluation._paramsEval = evaluation.params
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation.accumulate()
        precision = evaluation.eval['precision']  # (IoU, recall, category, 1, 1); -1: none to find
        return 100 * float(precision[precision > -1].mean()) if (precision > -1).any() else 0.0

    @cached_property
    def resampled(self) -> np.ndarray:
        """AP on images drawn with replacement, the same for all detectors: (:data:`SAMPLES`,)."""
        generator = np.random.default_rng(0)
        samples = generator.integers(self.count, size=(SAMPLES, self.count))
        return np.array([self.ap(sample) for sample in samples])


def over_images(
    ours: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """95 % interval of the difference in mean AP, for other images of the same kind.

    Args:
        ours (Sequence[Sequence[float]]): :attr:`ImageScores.resampled` of a row, by seed.
        others (Sequence[Sequence[float]]): That of the row that it is compared with.
    """
    means = [np.mean(row, axis=0) for row in (ours, others)]
    low, high = np.percentile(means[0] - means[1], (2.5, 97.5))
    return float(low), float(high)
