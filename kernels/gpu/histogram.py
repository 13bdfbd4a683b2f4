"""Histograms of many columns on a device: `kernels/cuda/histogram.cu`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.runtime import Buffer, Runtime, TooLarge
from kernels.gpu.tuned import parameter
from kernels.gpu.types import blocks_for, element

Counts = NDArray[np.int64]

THREADS = 256
ROWS = 16
"""Of a thread, at least: a block's counters are added to the whole at the end."""
BLOCKS = 4096
"""At most: enough to fill a large device several times over, few enough to add up quickly."""
COLUMNS = 65535
"""At most: the second dimension of a grid."""
COPIES = 32
"""Counters of each bin in a block, at most: one for each lane of a warp."""
SHARED_BYTES = 24 * 1024
"""For further copies of counters: more would leave a multiprocessor with too few blocks."""


def histograms(
    runtime: Runtime,
    x: Sequence[NDArray[Any]] | NDArray[Any] | Buffer,
    edges: Sequence[NDArray[np.float64]],
    slot: NDArray[np.int32] | None = None,
    slots: int = 1,
    *,
    threads: int | None = None,
    copies: int | None = None,
) -> tuple[Counts, Counts]:
    """Counts (slots, d, B) and missing (slots, d): see `kernels.cpu.histogram.histograms`.

    x: (d, n), float32 or float64, on the device or not. slot: (n,); None: all rows belong to slot 0. Shapes
    are checked by the caller. Raises TooLarge if the bins do not fit into shared memory, or the columns
    into a launch.
    """
    values: Any = x if hasattr(x, "get") else _columns(x)
    n = values.shape[-1] if len(edges) else 0
    size = n * len(edges)
    threads = threads or parameter(runtime, "histogram", size, "threads", THREADS)
    copies = copies or parameter(runtime, "histogram", size, "copies", COPIES)
    table, levels, bins = edge_table(edges, values.dtype)
    counts = np.zeros((slots, len(edges), bins), np.int64)
    if len(edges) > COLUMNS:
        raise TooLarge(f"{len(edges):,} columns; {COLUMNS:,} fit into a launch")
    if counts.size and n:
        here, copies, shared = _plan(runtime, levels, bins, slots, values.dtype.itemsize, copies)
        columns = values if hasattr(values, "get") else runtime.send(values)
        sent: list[Any] = [columns, runtime.send(table)]
        total = runtime.send(counts)
        grid = blocks_for(n, threads * ROWS, max(1, BLOCKS // len(edges))), len(edges), 1
        name = "histogram_all" if slot is None else "histogram"
        kernel = runtime.kernel("histogram.cu", name, **element(values.dtype))
        if slot is not None:
            sent.append(runtime.send(np.ascontiguousarray(slot, np.int32)))
        sent += [np.int64(n), np.int32(levels), np.int32(bins)]
        for first in range(0, slots, here):
            part = () if slot is None else (np.int32(first), np.int32(min(here, slots - first)))
            kernel(
                *(*sent, *part, np.int32(copies), total),
                grid=grid,
                block=(threads, 1, 1),
                shared=shared,
            )
        counts = total.get()
    return counts[:, :, :-1], counts[:, :, -1]


def histograms_of_rows(
    runtime: Runtime,
    x: Buffer,
    edges: Sequence[NDArray[np.float64]],
    *,
    threads: int = THREADS,
) -> tuple[Counts, Counts]:
    """Counts (d, B) and missing (d,) of x, (n, d) on the device, float32 or float64.

    Raises TooLarge if the bins of 32 columns do not fit into shared memory.
    """
    n, columns = x.shape
    table, levels, bins = edge_table(edges, x.dtype)
    if not n or not columns:
        return np.zeros((columns, bins - 1), np.int64), np.zeros(columns, np.int64)
    shared = 32 * ((x.dtype.itemsize << levels) + 4 * bins)
    _check_shared(runtime, bins, shared)
    total = runtime.zeros((columns, bins), np.int64)
    across = -(-columns // 32)
    grid = blocks_for(n, threads // 32 * ROWS * 4, max(1, BLOCKS // across)), across, 1
    kernel = runtime.kernel("histogram.cu", "histogram_rows", **element(x.dtype))
    kernel(
        *(
            x,
            runtime.send(table),
            np.int64(n),
            np.int32(columns),
            np.int32(levels),
            np.int32(bins),
            total,
        ),
        grid=grid,
        block=(threads, 1, 1),
        shared=shared,
    )
    counts = total.get()
    return counts[:, :-1], counts[:, -1]


def edge_table(
    edges: Sequence[NDArray[np.float64]], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], int, int]:
    """Edges as (d, 2**levels) of `dtype`, padded with NaN; the levels of the search; the most bins.

    The last bin is that of missing values.

    float32 edges are rounded up: a float32 value is not below an edge exactly if it is not below the least
    float32 that is not below the edge. So the bins are those of the float64 edges.
    """
    most = max((len(e) for e in edges), default=0)
    levels = max(1, most.bit_length())
    table = np.full((len(edges), 1 << levels), np.nan, dtype)
    for row, e in zip(table, edges, strict=True):
        with np.errstate(over="ignore"):
            near = np.asarray(e, np.float64).astype(dtype)
        row[: len(e)] = np.where(near < e, np.nextafter(near, dtype.type(np.inf)), near)
    return table, levels, most + 2


def _plan(
    runtime: Runtime, levels: int, bins: int, slots: int, itemsize: int, copies: int
) -> tuple[int, int, int]:
    """Slots that a launch counts, copies of a counter in a block, and bytes of shared memory."""
    table = itemsize << levels
    _check_shared(runtime, bins, table + 4 * bins)
    room = max(1, (SHARED_BYTES - table) // (4 * bins))
    here = min(slots, room)
    while copies > 1 and copies * here > room:
        copies //= 2
    return here, copies, table + 4 * copies * here * bins


def _check_shared(runtime: Runtime, bins: int, shared: int) -> None:
    if shared > runtime.properties.shared_per_block:
        raise TooLarge(f"{bins - 1} bins do not fit into shared memory")


def _columns(x: Any) -> NDArray[Any]:
    """(d, n) in C order; float32 stays float32, all else becomes float64."""
    kinds = {np.asarray(column).dtype for column in x}
    return np.ascontiguousarray(x, np.float32 if kinds == {np.dtype(np.float32)} else np.float64)
