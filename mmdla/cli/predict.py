"""Predict for images, folders of them and videos, with a detector or a classifier.

Files that cannot be used are passed over, with a message and in ``failed`` of predictions.json.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import mmcv
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import mmdla  # noqa: F401 - registers the models
from mmdla.apis.inputs import (
    SUFFIXES,
    VIDEO_SUFFIXES,
    Source,
    UnreadableError,
    find_left_out,
    find_sources,
    read_image,
)
from mmdla.apis.model import check_device, task_of
from mmdla.apis.predict import Predictor
from mmdla.apis.video import open_video, video_writer
from mmdla.cli.command_line import add_cfg_options, parse, positive
from mmdla.engine.config import check_checkpoint, read_config
from mmdla.errors import InputError
from mmdla.files import atomic_write

SCORE_THR = 0.3
FILES = f'Read from folders: images ({SUFFIXES}) and videos ({VIDEO_SUFFIXES}).'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=FILES)
    parser.add_argument('config', help='config file, e.g. configs/faster_rcnn_dla_r50.py')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        'inputs', nargs='+', type=Path, metavar='INPUT', help='image, video, or folder of them'
    )
    parser.add_argument(
        '--out', type=Path, required=True, metavar='DIR',
        help='gets pictures/ (and videos) with the predictions drawn, and predictions.json',
    )  # fmt: skip
    parser.add_argument(
        '--score-thr', type=float, help=f'leave out detections below, default {SCORE_THR}'
    )
    parser.add_argument(
        '--device', help="e.g. 'cpu' or 'cuda:1', default: a GPU where there is one"
    )
    parser.add_argument('--batch-size', type=positive, default=1, help='images at once')
    add_cfg_options(parser)
    return parse(parser, argv)


class Work:
    """Predictions for all sources, and those that failed.

    Args:
        predictor (Predictor): The model.
        folder (Path): Where images and videos go.
        batch_size (int): Images or frames at once.
        progress (Progress): The bars.
    """

    def __init__(
        self, predictor: Predictor, folder: Path, batch_size: int, progress: Progress
    ) -> None:
        self.predictor = predictor
        self.folder = folder
        self.batch_size = batch_size
        self.progress = progress
        self.results: list[dict] = []
        self.failed: list[dict] = []

    def images(self, sources: Sequence[Source]) -> None:
        bar = self.progress.add_task('images', total=len(sources))
        for batch in batches(sources, self.batch_size):
            ready = [one for source in batch if (one := self.prepare(source)) is not None]
            for source, image, sample in self.predict(ready):
                drawn = self.draw(source, image, sample)
                predictions = self.predictor.as_data(sample)
                self.results.append(self.entry(source, drawn, predictions=predictions))
            self.progress.advance(bar, len(batch))

    def prepare(self, source: Source) -> tuple | None:
        """Read an image and send it through the pipeline: (source, image, data)."""
        try:
            image = read_image(source.path)
            return source, image, self.predictor.pipeline(image)
        except UnreadableError as error:
            self.leave_out(source.path, str(error))
            return None

    def predict(self, ready: list[tuple]) -> Iterator[tuple]:
        """Give (source, image, prediction); if a batch fails, those of it that do not."""
        if not ready:
            return
        try:
            samples = self.predictor.predict([data for _, _, data in ready])
        except UnreadableError as error:
            if len(ready) == 1:
                self.leave_out(ready[0][0].path, str(error))
            else:
                for one in ready:
                    yield from self.predict([one])
            return
        for (source, image, _), sample in zip(ready, samples, strict=True):
            yield source, image, sample

    def draw(self, source: Source, image, sample) -> bool:
        """Write the image with what was found; whether that can be drawn."""
        try:
            drawn = self.predictor.draw(image, sample)
        except Exception as error:  # a few pixels, of which matplotlib makes no figure
            print(f'not drawn: {source.path}: {type(error).__name__}: {error}', file=sys.stderr)
            return False
        with atomic_write(self.target(source)) as part:
            mmcv.imwrite(drawn, str(part))
        return True

    def video(self, source: Source) -> None:
        try:
            reader = open_video(source.path)
            frames = self.frames(source, reader)
        except UnreadableError as error:
            self.leave_out(source.path, str(error))
            return
        if len(frames) < len(reader):
            print(
                f'{source.path}: ends after {len(frames)} of {len(reader)} frames', file=sys.stderr
            )
        self.results.append(self.entry(source, fps=reader.fps, frames=frames))

    def frames(self, source: Source, reader: mmcv.VideoReader) -> list[list[dict]]:
        bar = self.progress.add_task(source.path.name, total=max(len(reader), 1))
        frames: list[list[dict]] = []
        with video_writer(self.target(source), reader.fps) as writer:
            for batch in batches(reader, self.batch_size):
                for frame, sample in zip(batch, self.predictor(batch), strict=True):
                    writer.write(self.predictor.draw(frame, sample))
                    frames.append(self.predictor.as_data(sample))
                self.progress.advance(bar, len(batch))
        self.progress.update(bar, total=len(frames))
        return frames

    def target(self, source: Source) -> Path:
        path = self.folder / source.target
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def entry(self, source: Source, drawn: bool = True, **content) -> dict:
        name = f'{self.folder.name}/{source.target}' if drawn else None
        return dict(file=str(source.path), drawn=name, **content)

    def leave_out(self, path: Path, reason: str) -> None:
        print(f'passed over: {path}: {reason}', file=sys.stderr)
        self.failed.append(dict(file=str(path), reason=reason))

    def write(self, path: Path, **facts: str) -> None:
        """Write what there is, if there is something."""
        if self.results:
            report = dict(**facts, results=self.results, failed=self.failed)
            with atomic_write(path) as part:
                part.write_text(json.dumps(report, indent=1))


def batches(items: Iterable, size: int) -> Iterator[list]:
    iterator = (item for item in items)  # a video's own one goes on after its end
    while batch := list(islice(iterator, size)):
        yield batch


def check_score_thr(value: float | None, task: str) -> float:
    if value is None:
        return SCORE_THR
    if task != 'detection':
        raise InputError('--score-thr is for detectors, the config is of a classifier')
    if not 0 <= value <= 1:
        raise InputError(f'--score-thr must be in [0, 1], got {value}')
    return value


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Makes a folder, and removes what was made of it if nothing was written there."""
    try:
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f'--out: {path} cannot be made a folder ({error.strerror})') from error
    try:
        yield
    finally:
        with suppress(OSError):  # not empty, so those above it are not either
            for folder in made:
                folder.rmdir()


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    score_thr = check_score_thr(args.score_thr, task_of(cfg))
    check_checkpoint('checkpoint', args.checkpoint)
    device = check_device(args.device)
    folder = args.out / 'pictures'
    sources = find_sources(args.inputs, folder)
    predictor = Predictor(cfg, args.checkpoint, device, score_thr)

    columns = TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn()
    report = args.out / 'predictions.json'
    with made_folder(folder), Progress(*columns, TimeRemainingColumn()) as progress:
        work = Work(predictor, folder, args.batch_size, progress)
        for path, reason in find_left_out(args.inputs, folder):
            work.leave_out(path, reason)
        images = [source for source in sources if not source.is_video]
        try:
            if images:
                work.images(images)
            for source in sources:
                if source.is_video:
                    work.video(source)
        finally:  # what was found before an error or Ctrl-C is not lost
            work.write(report, config=args.config, checkpoint=args.checkpoint)
    if not work.results:
        raise InputError(f'none of the {len(sources)} inputs could be read')
    print(f'{len(work.results)} of {len(sources)} inputs: {folder}, {report}')
