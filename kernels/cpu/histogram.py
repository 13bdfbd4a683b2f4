"""Histograms of columns over frozen bins, compiled: the loop that a drift window stands on.

Counts are integers, so batches, slots and partitions add up to the same numbers in any order. The bin of a
value is that of `kernels.reference.bin_index`; -inf and inf fall into the outer bins, NaN is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Floats = NDArray[np.float64]
Slots = NDArray[np.int32]
Counts = NDArray[np.int64]

ROWS = 1024
"""Rows of a chunk: one that lies in a single slot, as most do in a stream, takes the fast path."""
WAYS = 4
"""Histograms that a chunk is spread over, so that equal neighbours do not wait for each other's count."""
CELLS = 1024
"""Cells of the grid that narrows a value to one edge."""
LEVELS = 5, 8, 16
"""Depths of the search where the grid does not; `n` levels hold up to 2**n - 1 edges."""
MAX_EDGES = (1 << LEVELS[-1]) - 1


@compiled
def _accumulate(x: Any, edges: Any, slot: Any, counts: Any, missing: Any) -> int:
    """1 if a slot is too large, else 0. Bin len(edges) + 1 is the missing."""
    padded, cells = prepared(edges, len(x))
    bins = np.empty(ROWS, np.int32)
    ways = np.empty((WAYS, len(edges) + 2), np.int64)
    for start in range(0, len(x), ROWS):
        values, rows = x[start : start + ROWS], slot[start : start + ROWS]
        find_bins(values, len(edges), padded, cells, bins)
        if _count(bins, rows, ways, counts, missing):
            return 1
    return 0


@compiled
def prepared(edges: Any, n: int) -> Any:
    """What `find_bins` looks n values up in: the edges, followed by NaNs, and a grid or nothing."""
    k = len(edges)
    cells = np.empty(0, np.int32)
    if k > 1 and n >= CELLS:
        cells = _grid(edges)
    gridded = len(cells) > 0
    padded = np.full(k + 1 if gridded else 1 << (5 if k < 32 else 8 if k < 256 else 16), np.nan)
    padded[:k] = edges
    return padded, cells


@compiled
def find_bins(values: Any, k: int, padded: Any, cells: Any, bins: Any) -> None:
    """The bin of each value among `k` edges, k + 1 being that of the missing."""
    if len(cells) > 0:
        _bins_by_grid(values, padded, cells, bins)
    elif k < 32:
        _bins_by_search_5(values, padded, k, bins)
    elif k < 256:
        _bins_by_search_8(values, padded, k, bins)
    else:
        _bins_by_search_16(values, padded, k, bins)


@compiled
def _grid(edges: Any) -> Any:
    """cells[i]: how many edges lie in cells before i; empty if two edges share a cell.

    The cell of a value never falls when the value rises (each rounding is monotone), so that edges in
    earlier cells lie below it, and edges in later cells above: what is left is its own cell's edge.
    """
    cells = np.zeros(CELLS + 1, np.int32)
    scale = _scale(edges)
    if not 0.0 < scale < np.inf:
        return cells[:0]
    for j in range(len(edges)):
        cell = _cell(edges[j], edges[0], scale)
        if cells[cell + 1]:
            return cells[:0]
        cells[cell + 1] = 1
    for i in range(CELLS):
        cells[i + 1] += cells[i]
    return cells


@compiled
def _scale(edges: Any) -> Any:
    return (CELLS - 2) / (edges[len(edges) - 1] - edges[0])


@compiled
def _cell(value: Any, low: Any, scale: Any) -> Any:
    at = (value - low) * scale + 1.0
    at = at if at > 0.0 else 0.0  # NaN, too
    return np.int32(at if at < CELLS - 1.0 else CELLS - 1.0)


@compiled
def _bins_by_grid(values: Any, edges: Any, cells: Any, bins: Any) -> None:
    """`edges` end with a NaN, which lies below nothing."""
    k = len(edges) - 1
    low, scale = edges[0], _scale(edges[:k])
    for i in range(len(values)):  # a loop without memory look-ups, which the compiler vectorises
        bins[i] = _cell(values[i], low, scale)
    for i in range(len(values)):
        value = values[i]
        at = np.int32(cells[np.uint32(bins[i])])
        at += value >= edges[np.uint32(at)]
        bins[i] = at if value == value else k + 1


def _by_search(levels: int) -> Callable[..., None]:
    """A compiled binary search of so many steps, unrolled and without a branch."""

    @compiled
    def bins_by_search(values: Any, edges: Any, k: int, bins: Any) -> None:
        """`edges` are padded to 2**levels with NaN, which lies below nothing."""
        for i in range(len(values)):
            value = values[i]
            at = 0
            for level in range(levels):
                step = 1 << (levels - 1 - level)
                at += step if value >= edges[at + step - 1] else 0
            bins[i] = at if value == value else k + 1

    return bins_by_search


_bins_by_search_5, _bins_by_search_8, _bins_by_search_16 = map(_by_search, LEVELS)


@compiled
def _count(bins: Any, slot: Any, ways: Any, counts: Any, missing: Any) -> int:
    low = high = slot[0]
    for i in range(len(slot)):
        low, high = min(low, slot[i]), max(high, slot[i])
    if high >= len(missing):
        return 1
    absent = ways.shape[1] - 1
    if low < high:
        for i in range(len(slot)):
            row, at = slot[i], bins[i]
            if row >= 0:
                if at == absent:
                    missing[row] += 1
                else:
                    counts[row, at] += 1
    elif low >= 0:
        count_in_one(bins[: len(slot)], ways, counts[low], missing[low : low + 1])
    return 0


@compiled
def count_in_one(bins: Any, ways: Any, counts: Any, missing: Any) -> None:
    """Bins of values that belong to one slot, whose counts, (k + 1,), and missing, (1,), are given."""
    absent = ways.shape[1] - 1
    ways[:] = 0
    for i in range(len(bins)):
        ways[i & (WAYS - 1), bins[i]] += 1
    for way in range(WAYS):
        for at in range(absent):
            counts[at] += ways[way, at]
        missing[0] += ways[way, absent]


def accumulate(x: Floats, edges: Floats, slot: Slots, counts: Counts, missing: Counts) -> None:
    """Add a column's histogram to `counts`, in place.

    x: (n,), NaN is missing. edges: (k,) ascending inner edges. slot: (n,), the row of `counts` that each
    value belongs to, negative for none. counts: (s, k + 1). missing: (s,). Raises ValueError if shapes do
    not fit, IndexError if a slot is not below s (what came before it may have been counted).
    """
    check_shapes("edges", len(edges) + 1, len(x), slot, counts, missing)
    if len(edges) > MAX_EDGES:
        raise ValueError(f"{len(edges)} edges; {MAX_EDGES} are the most")
    if _accumulate(x, edges, slot, counts, missing):
        check_slots(slot, len(missing))


def tally(code: Slots, lut: Slots, slot: Slots, counts: Counts, missing: Counts) -> None:
    """Add a category column's histogram to `counts`, in place.

    code: (n,) into a dictionary; -1 is missing; any other negative code is an unknown category, and so is
    one beyond `lut`. lut: (m,), the bin of each code, 0 <= bin < b. counts: (s, b), the last bin being the
    unknown. slot, missing and errors as in `accumulate`; IndexError, too, if `lut` names no bin.
    """
    check_shapes("bins", counts.shape[1], len(code), slot, counts, missing)
    if _tally(code, lut, slot, counts, missing):
        if len(lut) and not 0 <= lut.min() <= lut.max() < counts.shape[1]:
            raise IndexError(f"a code's bin is none of {counts.shape[1]}")
        check_slots(slot, len(missing))


@compiled
def _tally(code: Any, lut: Any, slot: Any, counts: Any, missing: Any) -> int:
    last = counts.shape[1] - 1
    for i in range(len(code)):
        row, c = slot[i], code[i]
        if row < 0:
            continue
        if row >= len(missing):
            return 1
        if c == -1:
            missing[row] += 1
            continue
        at = lut[c] if 0 <= c < len(lut) else last
        if at < 0 or at > last:
            return 1
        counts[row, at] += 1
    return 0


def histograms(
    x: Floats | Sequence[Floats], edges: Sequence[Floats], slot: Slots, slots: int
) -> tuple[Counts, Counts]:
    """Histograms of many columns at once: counts (slots, d, B) and missing (slots, d).

    x: (d, n), or d arrays of shape (n,). edges: d arrays; B is the largest number of bins, and the bins that
    a column does not have stay 0. slot: (n,) as in `accumulate`, and so are the errors.
    """
    check_columns(x, edges)
    width = max((len(e) + 1 for e in edges), default=1)
    counts = np.zeros((slots, len(edges), width), np.int64)
    missing = np.zeros((slots, len(edges)), np.int64)
    for place, (column, e) in enumerate(zip(x, edges, strict=True)):
        mine = np.zeros((slots, len(e) + 1), np.int64)
        absent = np.zeros(slots, np.int64)
        accumulate(np.ascontiguousarray(column, np.float64), e, slot, mine, absent)
        counts[:, place, : len(e) + 1], missing[:, place] = mine, absent
    return counts, missing


def check_columns(x: Floats | Sequence[Floats], edges: Sequence[Floats]) -> None:
    """Raises ValueError unless there are edges for each column."""
    if len(x) != len(edges):
        raise ValueError(f"{len(x)} columns and the edges of {len(edges)}")


def check_shapes(
    what: str, bins: int, n: int, slot: Slots, counts: Counts, missing: Counts
) -> None:
    """Raises ValueError unless `n` values, their slots and what is counted into fit."""
    if len(slot) != n:
        raise ValueError(f"{n} values and {len(slot)} slots")
    if counts.shape != (len(missing), bins):
        raise ValueError(
            f"counts have the shape {counts.shape}; {what} and missing say {(len(missing), bins)}"
        )


def check_slots(slot: Slots, slots: int) -> None:
    """Raises IndexError if a slot is not below `slots`."""
    if len(slot) and slot.max() >= slots:
        raise IndexError(f"slot {slot.max()} of {slots}")
