"""Runs of equal keys on a device: `kernels/cuda/segments.cu`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.scan import Board
from kernels.gpu.types import blocks_for, element_and_sum, line, wider

THREADS = 256
BLOCKS = 1 << 16
"""At most, of kernels whose threads go on by the size of the grid."""
ITEMS = 8
"""Elements of a thread."""


def window_starts(runtime: Runtime, times: Buffer, size: int) -> Buffer:
    """Start of each event's window, (n,) int64: a multiple of `size` > 0."""
    n = times.shape[0]
    starts = runtime.empty(n, np.int64)
    if n:
        kernel = runtime.kernel("windows.cu", "window_starts")
        blocks = blocks_for(n, THREADS, BLOCKS)
        arguments = times, np.int64(size), starts, np.int64(n)
        kernel(*arguments, grid=line(blocks), block=(THREADS, 1, 1))
    return starts


def segmented_scan(runtime: Runtime, keys: Buffer, x: Buffer) -> Buffer:
    """Prefix sums of x, (n,), that begin anew where a key, int64 (n,), differs from the one before."""
    n = x.shape[0]
    out = runtime.empty(n, x.dtype)
    if n:
        tiles = -(-n // (THREADS * ITEMS))
        kernel = runtime.kernel("segments.cu", "segmented_scan", **element_and_sum(x.dtype))
        board = Board(runtime, tiles, 2)
        kernel(
            *(keys, x, out, np.int64(n), *board.arguments),
            grid=line(tiles),
            block=(THREADS, 1, 1),
        )
    return out


def segmented_sums(
    runtime: Runtime, keys: Buffer, x: Buffer
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Key, count and sum of each run of equal keys, each (r,): sums are float64 or int64."""
    n, kind = x.shape[0], wider(x.dtype)
    if n == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, kind)
    tiles = -(-n // (THREADS * ITEMS))
    kernel = runtime.kernel("segments.cu", "segmented_sums", **element_and_sum(x.dtype))
    board = Board(runtime, tiles, 2)
    run_keys, run_ends = runtime.empty(n, np.int64), runtime.empty(n, np.int64)
    run_sums, runs = runtime.empty(n, kind), runtime.empty(1, np.int64)
    kernel(
        *(keys, x, np.int64(n), *board.arguments, run_keys, run_ends, run_sums, runs),
        grid=line(tiles),
        block=(THREADS, 1, 1),
    )
    found = int(runs.get()[0])
    counts = np.diff(run_ends.get()[:found], prepend=0)
    return run_keys.get()[:found], counts, run_sums.get()[:found]
