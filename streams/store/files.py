"""All that a store does to the file system, so that each step can be made the last one in a test."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def append(descriptor: int, data: NDArray[Any]) -> None:
    """Write all of `data` at the end of the file."""
    left = data.data.cast("B")
    while left:
        left = left[os.write(descriptor, left) :]


def sync(descriptor: int) -> None:
    os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_file(path: Path, *parts: NDArray[Any], wait: bool = True) -> int:
    """A new file; returns its bytes. With `wait` they are on disk then; the name is after `sync_folder`."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for part in parts:
            append(descriptor, part)
        if wait:
            sync(descriptor)
    finally:
        os.close(descriptor)
    return sum(part.nbytes for part in parts)


def replace_file(path: Path, data: bytes, sync: bool = True) -> int:
    """`path` holds the old bytes or `data`, whoever dies; with `sync`, durable when this returns."""
    fresh = path.with_name(path.name + ".new")
    write_file(fresh, np.frombuffer(data, np.uint8), wait=sync)
    rename(fresh, path)
    if sync:
        sync_folder(path.parent)
    return len(data)


def rename(old: Path, new: Path) -> None:
    os.replace(old, new)


def remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def cut(path: Path, size: int) -> None:
    """Shorten a file to its first `size` bytes."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.ftruncate(descriptor, size)
        sync(descriptor)
    finally:
        os.close(descriptor)
