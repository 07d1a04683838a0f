"""Draw on photographs: the boxes of what was found, and maps of where a layer looks."""

from collections.abc import Sequence
from itertools import cycle

import cv2
import matplotlib
import numpy as np
from mmengine.visualization import Visualizer
from torch import Tensor

from .model_under_test import Prediction

LONG_SIDE = 480  # pixels, to which small images are enlarged
COLORS = ('#ffb000', '#39d353', '#4cc9f0', '#ff5d8f', '#c77dff', '#f4f1de')


def enlarge(image: np.ndarray) -> np.ndarray:
    """Return an image of (H, W, 3), at least ``LONG_SIDE`` on its long side."""
    factor = max(1.0, LONG_SIDE / max(image.shape[:2]))
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def box_colors(found: Sequence[Prediction]) -> dict[str, str]:
    """Return the colour of the boxes of every class, the class that was found most surely first."""
    labels = dict.fromkeys(one.label for one in found)
    return dict(zip(labels, cycle(COLORS), strict=False))


def draw_boxes(image: np.ndarray, found: Sequence[Prediction]) -> np.ndarray:
    """Return the enlarged image with a box around each object, coloured by class."""
    large = enlarge(image)
    visualizer = Visualizer(image=large)
    colors = box_colors(found)
    factor = large.shape[1] / image.shape[1]
    limits = 2 * (large.shape[1] - 1, large.shape[0] - 1)  # x, y, x, y
    for one in found:
        if one.box is not None:
            box = (factor * np.array(one.box)).clip(0, limits)
            visualizer.draw_bboxes(box, edge_colors=colors[one.label], line_widths=2)
    return visualizer.get_image()


def overlay(
    image: np.ndarray, values: Tensor, size: tuple[int, int], lowest: float | None = None
) -> np.ndarray:
    """Lay a map over the enlarged image, transparent where it is small.

    Args:
        image (np.ndarray): What the network gets, RGB (H, W, 3), without padding.
        values (Tensor): Shape (h, w).
        lowest (float, optional): What is drawn as nothing. Default: the smallest hundredth of
            the values; the largest hundredth is drawn as the maximum.
        size (tuple[int, int]): Height and width that the map covers, with the padding, which is
            on the right and below.
    """
    height, width = image.shape[:2]
    whole = cv2.resize(values.numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
    whole = whole[:height, :width]
    low, high = np.percentile(whole, (1, 99))
    low = low if lowest is None else lowest
    whole = np.clip((whole - low) / max(high - low, 1e-12), 0, 1)
    large = enlarge(image)
    strength = cv2.resize(whole, large.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(large, cv2.COLOR_RGB2GRAY)[..., None]
    return _blend(grey, strength)


def color_scale() -> np.ndarray:
    """Return the colours of :func:`overlay` from nothing to the maximum, on a grey image."""
    strength = np.linspace(0, 1, LONG_SIDE)[None].repeat(24, 0)  # (H, W)
    return _blend(np.full((*strength.shape, 1), 128.0), strength)


def _blend(grey: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Strengths between 0 and 1, (H, W), in colours over a grey image (H, W, 1)."""
    color = 255 * matplotlib.colormaps['inferno'](strength)[..., :3]  # (H, W, 3)
    alpha = 0.85 * np.sqrt(strength)[..., None]
    return np.uint8(np.clip((1 - alpha) * grey + alpha * color, 0, 255))


def encode(image: np.ndarray, ending: str) -> bytes:
    """RGB (H, W, 3) as a ``'.png'`` or ``'.jpg'`` file."""
    return cv2.imencode(ending, image[..., ::-1])[1].tobytes()
