"""CIFAR-10's binary version, read from a folder. No pickle is opened.

The data set is by A. Krizhevsky (Learning Multiple Layers of Features from Tiny Images, 2009): 60,000 images
of 32 x 32 pixels in ten classes. A row of a file is 3,073 bytes: the class (0 to 9), then 1,024 bytes each of
red, green and blue, row by row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
COLOURS, SIDE = 3, 32
PIXELS = COLOURS * SIDE * SIDE
ROW_BYTES = 1 + PIXELS
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
WANTED = (
    "the binary version of CIFAR-10 (cifar-10-binary.tar.gz, unpacked: data_batch_1.bin to data_batch_5.bin,"
    " test_batch.bin)"
)


class NotCifar10(RuntimeError):
    """The folder does not hold the data set; the message says what of it, and what is wanted."""


def read_images(folder: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """(classes (n,), images (n, 3, 32, 32) in 0..255) of the six files in turn; raises NotCifar10."""
    if not folder.is_dir():
        raise NotCifar10(f"there is no folder {folder}: it must hold {WANTED}")
    files = [_rows(folder / name) for name in FILES]
    rows = np.concatenate(files)
    return rows[:, 0].copy(), rows[:, 1:].reshape(-1, COLOURS, SIDE, SIDE)


def _rows(path: Path) -> NDArray[np.uint8]:
    """(n, 3073) bytes."""
    if not path.is_file():
        python = (path.parent / path.stem).exists()
        found = ", but the version for Python, whose pickles are not opened" if python else ""
        raise NotCifar10(f"{path.parent} has no {path.name}{found}: it must hold {WANTED}")
    size = path.stat().st_size
    if size == 0 or size % ROW_BYTES:
        raise NotCifar10(
            f"{path}: {size:,} bytes are no whole number of rows of {ROW_BYTES:,} bytes (one of the class,"
            f" {PIXELS:,} of the pixels): was it unpacked whole? Wanted is {WANTED}"
        )
    rows = np.fromfile(path, np.uint8).reshape(-1, ROW_BYTES)
    wrong = np.flatnonzero(rows[:, 0] >= len(CLASSES))
    if len(wrong):
        row = int(wrong[0])
        raise NotCifar10(
            f"{path}: row {row + 1} is of class {rows[row, 0]}, there are 0 to 9 (CIFAR-100 has two bytes"
            f" before its pixels): wanted is {WANTED}"
        )
    return rows
