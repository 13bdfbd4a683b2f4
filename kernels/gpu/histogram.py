"""Histograms of many columns on a device: `kernels/cuda/histogram.cu`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.runtime import Buffer, OutOfMemory, Runtime

Counts = NDArray[np.int64]

THREADS = 256
BLOCKS = 1024
"""Of one column at most: enough to fill a large device, few enough to add up quickly."""
SHARED_BYTES = 48 * 1024
"""Shared memory that every device gives a block without being asked."""
COPIES = 8
"""Histograms per block at most: one for each of its warps."""


def histograms(
    runtime: Runtime,
    x: Sequence[NDArray[Any]] | NDArray[Any] | Buffer,
    edges: Sequence[NDArray[np.float64]],
    slot: NDArray[np.int32] | None,
    slots: int = 1,
) -> tuple[Counts, Counts]:
    """Counts (slots, d, B) and missing (slots, d): see `kernels.cpu.histogram.histograms`.

    x: (d, n), float32 or float64, on the device or not. slot: (n,); None: all rows belong to slot 0. Shapes
    are checked by the caller. Raises OutOfMemory if the bins do not fit into shared memory.
    """
    width = max((len(e) + 1 for e in edges), default=1)
    bins = width + 1
    values: Any = x if hasattr(x, "get") else _columns(x)
    dtype, n = values.dtype, values.shape[-1] if len(edges) else 0
    table, levels = edge_table(edges, width, dtype)
    counts = np.zeros((slots, len(edges), bins), np.int64)
    if counts.size == 0 or n == 0:
        return counts[:, :, :width], counts[:, :, width]
    here, copies, shared = _plan(levels, bins, slots, dtype.itemsize)
    kernel = runtime.kernel(
        "histogram.cu",
        "histogram" if slot is not None else "histogram_all",
        T="float" if dtype == np.float32 else "double",
    )
    column = values if hasattr(values, "get") else runtime.send(values)
    sent = [column, runtime.send(table)]
    if slot is not None:
        sent.append(runtime.send(np.ascontiguousarray(slot, np.int32)))
    total = runtime.send(counts)
    blocks = min(BLOCKS, -(-n // (THREADS * 4)))
    for first in range(0, slots, here):
        kernel(
            *sent,
            np.int64(n),
            *map(np.int32, (levels, bins, first, min(here, slots - first), copies)),
            total,
            grid=(blocks, len(edges), 1),
            block=(THREADS, 1, 1),
            shared=shared,
        )
    counts = total.get()
    return counts[:, :, :width], counts[:, :, width]


def edge_table(
    edges: Sequence[NDArray[np.float64]], width: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], int]:
    """Edges as (d, 2**levels) of `dtype`, padded with NaN, and the levels of the search.

    float32 edges are rounded up: a float32 value is not below an edge exactly if it is not below the least
    float32 that is not below the edge. So the bins are those of the float64 edges.
    """
    levels = max(1, (width - 1).bit_length())
    table = np.full((len(edges), 1 << levels), np.nan, dtype)
    for row, e in zip(table, edges, strict=True):
        with np.errstate(over="ignore"):
            near = np.asarray(e, np.float64).astype(dtype)
        row[: len(e)] = np.where(near < e, np.nextafter(near, dtype.type(np.inf)), near)
    return table, levels


def _plan(levels: int, bins: int, slots: int, itemsize: int) -> tuple[int, int, int]:
    """Slots that a launch counts, copies of their histograms in a block, and bytes of shared memory."""
    room = (SHARED_BYTES - (itemsize << levels)) // (4 * bins)
    if room < 1:
        raise OutOfMemory(f"{bins - 1} bins do not fit into shared memory")
    here = min(slots, room)
    copies = min(COPIES, room // here)
    return here, copies, (itemsize << levels) + 4 * copies * here * bins


def _columns(x: Any) -> NDArray[Any]:
    """(d, n) in C order; float32 stays float32, all else becomes float64."""
    kinds = {np.asarray(column).dtype for column in x}
    return np.ascontiguousarray(x, np.float32 if kinds == {np.dtype(np.float32)} else np.float64)
