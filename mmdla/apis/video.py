"""Videos: their frames, and frames to a video."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import mmcv
import numpy as np

from mmdla.apis.inputs import UnreadableError
from mmdla.errors import InputError
from mmdla.files import atomic_write

FOURCC = 'mp4v'  # OpenCV's wheels can write it everywhere
DEFAULT_FPS = 25.0  # of videos that do not say


def open_video(path: Path) -> mmcv.VideoReader:
    """Return a video whose frames can be iterated over, (H, W, 3), BGR.

    Raises:
        UnreadableError: There is no such file, or it is no video that OpenCV can read.
    """
    if not path.is_file():
        raise UnreadableError('no such file')
    video = mmcv.VideoReader(str(path))
    if not video.opened or video.read() is None:
        raise UnreadableError('no video, a damaged one, or of a kind that OpenCV cannot read')
    return video


class VideoWriter:
    """Writes frames (H, W, 3), BGR; the first one decides on the size."""

    def __init__(self, path: Path, fps: float) -> None:
        self.path = path
        self.fps = fps
        self.writer: cv2.VideoWriter | None = None

    def write(self, frame: np.ndarray) -> None:
        if self.writer is None:
            height, width = frame.shape[:2]
            fourcc = cv2.VideoWriter.fourcc(*FOURCC)
            self.writer = cv2.VideoWriter(str(self.path), fourcc, self.fps, (width, height))
            if not self.writer.isOpened():
                raise InputError(f'OpenCV cannot write videos ({FOURCC}) to {self.path}')
        self.writer.write(np.ascontiguousarray(frame))


@contextmanager
def video_writer(path: Path, fps: float) -> Iterator[VideoWriter]:
    """Yield a writer whose file is there only when all frames have been written."""
    with atomic_write(path) as part:
        writer = VideoWriter(part, fps if fps > 0 else DEFAULT_FPS)
        try:
            yield writer
        finally:
            if writer.writer is not None:
                writer.writer.release()
