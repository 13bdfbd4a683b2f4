"""Cosine top-k on a device: `topk.cu`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.elements import ceil_div, grid
from kernels.gpu.runtime import Buffer, DeviceFailed, Runtime, TooLarge
from kernels.gpu.types import aligned

MOST = 256
"""The largest k."""
MANY = 16
"""Queries from which on a block multiplies tiles of them instead of reading the rows once per few."""
_TILE_QUERIES = 64
_TILE_FLOATS = 16 * (128 + 4) + 16 * (64 + 4) + 64 * (128 + 1)


def candidates(
    runtime: Runtime,
    vectors: Buffer,
    inverse: Buffer,
    queries: Buffer,
    k: int,
    tiled: bool | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k best rows of each query, (count, k), and their scores, falling; for n < k, then -1 and -inf.

    vectors: (n, d) float32, d a multiple of 4. inverse: (n,) float32. queries: (count, d) float32,
    of length 1.
    `tiled`: which kernel; None chooses. Raises TooLarge for k > MOST.
    """
    (n, columns), count = vectors.shape, queries.shape[0]
    if n == 0 or count == 0:
        return np.full((count, k), -1, np.int64), np.full((count, k), -np.inf, np.float32)
    if not 0 < k <= MOST:
        raise TooLarge(f"the best {k}; 1 to {MOST} are kept in shared memory")
    if columns % 4 or not aligned(vectors, queries):
        raise DeviceFailed("top-k: rows that do not begin at multiples of 16 bytes: copy them")
    length = max(32, 1 << (k - 1).bit_length())
    most_lists = ceil_div(n, 256)
    if tiled is None:
        tiled = count >= MANY and length <= 128
    if tiled:
        each = _TILE_QUERIES
        kernel = runtime.kernel("topk.cu", "topk_tiles", LIST=length)
        shared = each * 2 * length * 8 + 4 * _TILE_FLOATS
        most_lists = ceil_div(n, 128)
    else:
        each = min(4 if length < 128 else 2, 1 << (count - 1).bit_length())
        dim = ceil_div(columns, 128) * 128
        kernel = runtime.kernel("topk.cu", "topk_scan", LIST=length, DIM=dim, QUERIES=each)
        shared = 8 * each * 2 * length * 8 + (
            0 if dim * each <= 768 and length == 32 else 4 * dim * each
        )
    lists = min(most_lists, 2 * runtime.properties.multiprocessors)
    kept = runtime.empty((count, lists, length), np.uint64)
    kernel(
        *(vectors, inverse, queries, kept),
        *map(np.int32, (n, count, columns, k)),
        grid=grid(lists, ceil_div(count, each)),
        block=(256, 1, 1),
        shared=shared,
    )
    best = runtime.empty((count, k), np.uint64)
    merge = runtime.kernel("topk.cu", "topk_merge", LIST=length)
    merge(kept, best, np.int32(lists * length), np.int32(k), grid=(count, 1, 1), block=(256, 1, 1))
    return unpacked(best.get())


def rescored(
    runtime: Runtime,
    vectors: Buffer,
    inverse: Buffer,
    queries: Buffer,
    inverse_query: Buffer,
    rows: NDArray[np.int64],
) -> NDArray[np.float64]:
    """The cosine in double of each query with its candidates `rows` (count, each); -inf where a row is -1."""
    count, each = rows.shape
    scores = runtime.empty((count, each), np.float64)
    kernel = runtime.kernel("topk.cu", "rescore")
    kernel(
        *(vectors, inverse, queries, inverse_query, runtime.send(rows), scores),
        *map(np.int32, (count, each, vectors.shape[1])),
        grid=(ceil_div(count * each, 8), 1, 1),
        block=(32, 8, 1),
    )
    return np.asarray(scores.get())


def inverse_lengths(runtime: Runtime, vectors: Buffer) -> Buffer:
    """(n,) float64: 1 / length of each row, 0 for a row of zeros, NaN for one that is not finite."""
    n, columns = vectors.shape
    inverse = runtime.empty(n, np.float64)
    if n:
        kernel = runtime.kernel("topk.cu", "inverse_lengths")
        arguments = vectors, inverse, np.int64(n), np.int32(columns)
        kernel(*arguments, grid=(ceil_div(n, 8), 1, 1), block=(32, 8, 1))
    return inverse


def unpacked(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows and scores of keys (see `best.cuh`); of key 0, -1 and -inf."""
    empty = keys == 0
    ordered = (keys >> np.uint64(32)).astype(np.uint32)
    negative = ordered < 0x80000000
    bits = np.where(negative, ~ordered, ordered & np.uint32(0x7FFFFFFF))
    rows: NDArray[Any] = 0xFFFFFFFF - (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
    scores = np.where(empty, np.float32(-np.inf), bits.astype(np.uint32).view(np.float32))
    return np.where(empty, -1, rows), scores
