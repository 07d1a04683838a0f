"""Whether an exported model computes what PyTorch does, on real images."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import mmcv
import torch
from torch import Tensor, nn

from mmdla.apis.export import Part, check_packages
from mmdla.errors import InputError

Runner = Callable[[Tensor], Sequence[Tensor]]
SIZES = ((224, 256), (193, 321))  # height, width
BATCHES = (1, 3)
TOLERANCE = 1e-4


class Difference(NamedTuple):
    """Differences between the outputs for one batch.

    Attributes:
        shape (tuple[int]): Of the batch.
        absolute (float): Largest difference of two numbers.
        relative (float): The same over the largest number of that output, or over 1.
    """

    shape: tuple[int, ...]
    absolute: float
    relative: float

    @property
    def is_small(self) -> bool:
        return self.relative <= TOLERANCE

    def __str__(self) -> str:
        shape = 'x'.join(map(str, self.shape))
        return f'{shape:>14}: largest difference {self.absolute:.1e}, relative {self.relative:.1e}'


def onnx_runner(path: Path) -> Runner:
    """Runs an ONNX file by onnxruntime on the CPU."""
    check_packages('onnxruntime')
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    return lambda images: [
        torch.from_numpy(v) for v in session.run(None, dict(images=images.numpy()))
    ]


def program_runner(path: Path) -> Runner:
    """Runs a file of ``torch.export``."""
    return torch.export.load(path).module(check_guards=False)


def differences(
    run: Runner, part: Part, images: Sequence[Path], sizes=SIZES, batches=BATCHES
) -> Iterator[Difference]:
    """Compare with PyTorch, for every size and number of images.

    Args:
        run (Callable): The exported model.
        part (Part): What it was made from.
        images (Sequence[Path]): Real images; they are taken in turn.
        sizes (Sequence[tuple[int, int]]): Heights and widths that they are scaled to.
        batches (Sequence[int]): Numbers of images.

    Raises:
        InputError: An image cannot be read.
    """
    read = [_read(path) for path in images]
    for size in sizes:
        for batch in batches:
            images = prepare(part.model, [read[i % len(read)] for i in range(batch)], size)
            with torch.no_grad():
                expected = part(images)
            pairs = list(zip(run(images), expected, strict=True))
            gaps = [(got - want).abs().max().item() for got, want in pairs]
            scales = [max(1.0, want.abs().max().item()) for _, want in pairs]
            relative = max(gap / scale for gap, scale in zip(gaps, scales, strict=True))
            yield Difference(tuple(images.shape), max(gaps), relative)


def prepare(model: nn.Module, images: Sequence, size: tuple[int, int]) -> Tensor:
    """Scale images and pass them through the model's data preprocessor.

    Args:
        model (nn.Module): A detector or classifier.
        images (Sequence[np.ndarray]): As OpenCV reads them, (H_i, W_i, 3) in BGR.
        size (tuple[int, int]): Height ``H`` and width ``W``, in pixels.

    Returns:
        Tensor: Input of the network and of what was exported from it, shape (B, 3, H, W).
    """
    height, width = size
    scaled = [mmcv.imresize(image, (width, height)) for image in images]
    inputs = [torch.from_numpy(image).permute(2, 0, 1) for image in scaled]
    return model.data_preprocessor(dict(inputs=inputs, data_samples=None))['inputs']


def _read(path: Path):
    if not Path(path).is_file():
        raise InputError(f'--images: no file {path}')
    image = mmcv.imread(str(path))
    if image is None:
        raise InputError(f'--images: {path} cannot be read as an image')
    return image
