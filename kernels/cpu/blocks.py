"""The building blocks on this processor. Floats are summed in float64, as on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Array = NDArray[Any]
_LANES = 32


def wider(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """What elements are summed in: float64 or int64."""
    return np.dtype(np.float64 if dtype.kind == "f" else np.int64)


def reduce(x: Array, operation: str) -> np.generic:
    """Sum, min or max of x, (n,), n > 0: a float64 or int64; NaN if there is one."""
    if operation == "sum":
        found: np.generic = wider(x.dtype).type(_sum(x, np.zeros(_LANES, wider(x.dtype))))
    else:
        found = (x.min() if operation == "min" else x.max()).astype(wider(x.dtype))
    return found


@compiled
def _sum(x: Any, lanes: Any) -> Any:
    """In lanes that the compiler adds side by side; the same bits for the same x."""
    whole = len(x) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for lane in range(_LANES):
            lanes[lane] += x[i + lane]
    for i in range(whole, len(x)):
        lanes[i - whole] += x[i]
    return lanes.sum()


def scan(x: Array, *, exclusive: bool = False) -> Array:
    """Prefix sums of x, (n,), in its dtype; integers wrap around."""
    out = np.empty_like(x)
    _scan(x, out, wider(x.dtype).type(0), exclusive)
    return out


@compiled
def _scan(x: Any, out: Any, total: Any, exclusive: bool) -> None:
    for i in range(len(x)):
        before = total
        total += x[i]
        out[i] = before if exclusive else total


def window_starts(times: Array, size: int) -> Array:
    """Start of each event's window, (n,) int64: a multiple of `size` > 0."""
    starts = np.empty_like(times)
    _window_starts(times, size, starts)
    return starts


@compiled
def _window_starts(times: Any, size: int, starts: Any) -> None:
    """Neighbours are mostly in one window: only what leaves the last one is divided."""
    start = np.int64(0)
    for i in range(len(times)):
        inside = np.uint64(times[i]) - np.uint64(start)  # unsigned: no difference is too large
        if times[i] < start or inside >= np.uint64(size):
            start = times[i] // size * size
        starts[i] = start


def segmented_scan(keys: Array, x: Array) -> Array:
    """Prefix sums of x, (n,), that begin anew where a key, int64 (n,), differs from the one before."""
    out = np.empty_like(x)
    _segmented_scan(keys, x, out, wider(x.dtype).type(0))
    return out


@compiled
def _segmented_scan(keys: Any, x: Any, out: Any, nothing: Any) -> None:
    total = nothing
    for i in range(len(x)):
        if i == 0 or keys[i] != keys[i - 1]:
            total = nothing
        total += x[i]
        out[i] = total


def segmented_sums(keys: Array, x: Array) -> tuple[Array, Array, Array]:
    """Key, count and sum of each run of equal keys, each (r,): sums are float64 or int64."""
    runs = _runs(keys)
    found = np.empty(runs, np.int64), np.empty(runs, np.int64)
    sums = np.zeros(runs, wider(x.dtype))
    _segmented_sums(keys, x, *found, sums)
    return *found, sums


@compiled
def _runs(keys: Any) -> int:
    runs = 0
    for i in range(len(keys)):
        runs += i == 0 or keys[i] != keys[i - 1]
    return runs


@compiled
def _segmented_sums(keys: Any, x: Any, run_keys: Any, counts: Any, sums: Any) -> None:
    run = -1
    for i in range(len(keys)):
        if i == 0 or keys[i] != keys[i - 1]:
            run += 1
            run_keys[run] = keys[i]
            counts[run] = 0
        counts[run] += 1
        sums[run] += x[i]


def spmv(offsets: Array, columns: Array, values: Array, x: Array) -> Array:
    """A x, (rows,), of a matrix in compressed rows; sums are float64."""
    y = np.empty(len(offsets) - 1, values.dtype)
    _spmv(offsets, columns, values, x, y)
    return y


@compiled
def _spmv(offsets: Any, columns: Any, values: Any, x: Any, y: Any) -> None:
    for row in range(len(y)):
        k, end = offsets[row], offsets[row + 1]
        a = b = c = d = 0.0  # four sums that do not wait for each other
        while k + 4 <= end:
            a += np.float64(values[k]) * np.float64(x[np.uint32(columns[k])])
            b += np.float64(values[k + 1]) * np.float64(x[np.uint32(columns[k + 1])])
            c += np.float64(values[k + 2]) * np.float64(x[np.uint32(columns[k + 2])])
            d += np.float64(values[k + 3]) * np.float64(x[np.uint32(columns[k + 3])])
            k += 4
        while k < end:
            a += np.float64(values[k]) * np.float64(x[np.uint32(columns[k])])
            k += 1
        y[row] = (a + b) + (c + d)
