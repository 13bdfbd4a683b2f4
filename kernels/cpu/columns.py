"""What a drift window notes of a column: histogram and moments, in one pass over rows grouped by slot."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from kernels.cpu.histogram import (
    MAX_EDGES,
    ROWS,
    WAYS,
    Counts,
    Floats,
    count_in_one,
    find_bins,
    prepared,
)
from kernels.cpu.moments import FRACTION, Ranges, Sums, add_range, add_sums, check_sizes

Rows = NDArray[np.int64]


def accumulate(
    x: Floats,
    rows: Rows,
    sizes: Rows,
    edges: Floats,
    center: float,
    scale: float,
    counts: Counts,
    missing: Counts,
    sums: Sums,
    ranges: Ranges,
) -> None:
    """Add the values `x[rows]`, x: (n,), rows: (m,), to their slots in place; NaN is missing.

    The first `sizes[0]` rows are those of slot 0, sizes: (s,), and so on. edges: (k,) ascending inner edges.
    counts: (s, k + 1). missing: (s,). sums: (s, 4) and ranges: (s, 2), see `moments`. Raises ValueError if
    shapes or sizes do not fit, IndexError for a row that x does not have.
    """
    check_sizes(sizes, len(rows), len(missing))
    if len(edges) > MAX_EDGES:
        raise ValueError(f"{len(edges)} edges; {MAX_EDGES} are the most")
    slots = len(sizes)
    shapes = counts.shape, missing.shape, sums.shape, ranges.shape
    if shapes != ((slots, len(edges) + 1), (slots,), (slots, 4), (slots, 2)):
        raise ValueError(f"{shapes} are no counts of {len(edges)} edges and {slots} slots")
    factor = (1 << FRACTION) / scale
    if _accumulate(x, rows, sizes, edges, factor, center, counts, missing, sums, ranges):
        raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(x)}")


@compiled
def _accumulate(
    x: Any,
    rows: Any,
    sizes: Any,
    edges: Any,
    factor: float,
    center: float,
    counts: Any,
    missing: Any,
    sums: Any,
    ranges: Any,
) -> int:
    """In chunks that the nearest cache holds, each of one slot; 1 if a row is not there."""
    padded, cells = prepared(edges, len(rows))
    held, bins = np.empty(ROWS, np.float64), np.empty(ROWS, np.int32)
    ways = np.empty((WAYS, len(edges) + 2), np.int64)
    begin = end = 0
    for at in range(len(sizes)):
        end += sizes[at]
        while begin < end:
            chunk = rows[begin : min(begin + ROWS, end)]
            low = high = chunk[0]
            for i in range(len(chunk)):
                low, high = min(low, chunk[i]), max(high, chunk[i])
            if low < 0 or high >= len(x):
                return 1
            values = held[: len(chunk)]
            for i in range(len(chunk)):
                values[i] = x[chunk[i]]
            find_bins(values, len(edges), padded, cells, bins)
            count_in_one(bins[: len(chunk)], ways, counts[at], missing[at : at + 1])
            add_sums(values, factor, center, sums[at])
            add_range(values, ranges[at])
            begin += len(chunk)
    return 0
