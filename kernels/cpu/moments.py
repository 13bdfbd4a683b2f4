"""Mean, variance and range of a column from integer sums: the same bits in whatever order rows come.

A value x enters as q = round((x - center) / scale * 2^20), so a scale near the spread of the data keeps six
digits; beyond 2^11 scales it counts as that far away. Sums of q and q^2 are exact.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

FRACTION = 20
_LIMIT = float(1 << 31) - 1
_LOW = (1 << 32) - 1
_MOST = np.int64((1 << 63) - 1)
_MOST = np.int64((1 << 63) - 1)

Sums = NDArray[np.int64]
"""(s, 4): values that are finite, sum of q, and of q^2 its high and its low 32 bits."""
Ranges = NDArray[np.float64]
"""(s, 2): least and greatest value."""


def no_ranges(slots: int) -> Ranges:
    """Ranges of nothing: (inf, -inf)."""
    return np.tile(np.array([np.inf, -np.inf]), (slots, 1))


def add_moments(
    x: NDArray[np.float64],
    sizes: NDArray[np.int64],
    center: float,
    scale: float,
    sums: Sums,
    ranges: Ranges,
) -> None:
    """Add a column, (n,), to `sums` and `ranges` in place: `sizes[i]` rows to slot i, one after the other.

    sizes: (s,). NaN is skipped; infinities count for the range alone. Raises ValueError if sizes do not fit.
    """
    check_sizes(sizes, len(x), len(sums))
    _add(x, sizes, (1 << FRACTION) / scale, center, sums, ranges)


def check_sizes(sizes: NDArray[np.int64], n: int, slots: int) -> None:
    """Raises ValueError unless they part `n` rows into so many slots."""
    found = sizes.tolist()
    if len(found) != slots or sum(found) != n or min(found, default=0) < 0:
        raise ValueError(f"{n} rows in {slots} slots cannot be {found}")


@compiled
def _add(x: Any, sizes: Any, factor: float, center: float, sums: Any, ranges: Any) -> None:
    begin = 0
    for at in range(len(sizes)):
        values = x[begin : begin + sizes[at]]
        add_sums(values, factor, center, sums[at])
        add_range(values, ranges[at])
        begin += len(values)


@compiled
def add_sums(values: Any, factor: float, center: float, sums: Any) -> None:
    """Values of one slot: a loop without a branch, which the compiler vectorises."""
    count = first = high = low = np.int64(0)
    for i in range(len(values)):
        scaled = (values[i] - center) * factor
        scaled = scaled if scaled > -_LIMIT else -_LIMIT
        scaled = scaled if scaled < _LIMIT else _LIMIT
        finite = abs(values[i]) < np.inf
        q = np.int64(np.int32(np.rint(scaled))) if finite else np.int64(0)
        count += finite
        first += q
        high += q * q >> 32
        low += q * q & _LOW
    sums[0] += count
    sums[1] += first
    sums[2] += high
    sums[3] += low


@compiled
def add_range(values: Any, bounds: Any) -> None:
    """Values of one slot, by their bits: these order like integers once those below zero are turned over."""
    bits = values.view(np.int64)
    least, greatest = _MOST, ~_MOST
    for i in range(len(values)):
        key = bits[i] ^ bits[i] >> 63 & _MOST
        present = values[i] == values[i]
        least = min(least, key if present else _MOST)
        greatest = max(greatest, key if present else ~_MOST)
    if least <= greatest:  # adding 0 makes one zero of both, whichever came first
        bounds[0] = min(bounds[0], np.int64(least ^ least >> 63 & _MOST).view(np.float64) + 0.0)
        bounds[1] = max(
            bounds[1], np.int64(greatest ^ greatest >> 63 & _MOST).view(np.float64) + 0.0
        )


def mean_and_variance(
    sums: Sequence[int], center: float, scale: float
) -> tuple[float, float] | None:
    """Of one row of `Sums`; population variance; None without values."""
    count, first, high, low = map(int, sums)
    if not count:
        return None
    squares = (high << 32) + low
    unit = scale / (1 << FRACTION)
    mean = center + first / count * unit
    variance = (squares * count - first * first) / (count * count) * unit * unit
    return (mean, variance) if math.isfinite(mean) and math.isfinite(variance) else None
