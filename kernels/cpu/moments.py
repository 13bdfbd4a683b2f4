"""Mean, variance and range of a column from integer sums: the same bits in whatever order rows come.

A value x enters as q = round((x - center) / scale * 2^20), so a scale near the spread of the data keeps six
digits; beyond 2^11 scales it counts as that far away. Sums of q and q^2 are exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

FRACTION = 20
_LIMIT = float(1 << 31) - 1
_LOW = (1 << 32) - 1

Sums = NDArray[np.int64]
"""(s, 4): values that are finite, sum of q, and of q^2 its high and its low 32 bits."""
Ranges = NDArray[np.float64]
"""(s, 2): least and greatest value."""


def no_ranges(slots: int) -> Ranges:
    """Ranges of nothing: (inf, -inf)."""
    return np.tile(np.array([np.inf, -np.inf]), (slots, 1))


def add_moments(
    x: NDArray[np.float64],
    slot: NDArray[np.int32],
    center: float,
    scale: float,
    sums: Sums,
    ranges: Ranges,
) -> None:
    """Add a column, (n,), to `sums` and `ranges` in place; `slot`, (n,), is each row's place in them.

    NaN and rows of a negative slot are skipped; infinities count for the range alone. Raises ValueError
    if there are not as many slots as values, IndexError if a slot is not below s.
    """
    if len(slot) != len(x):
        raise ValueError(f"{len(x)} values and {len(slot)} slots")
    if _add(x, slot, center, scale, sums, ranges):
        raise IndexError(f"slot {slot.max()} of {len(sums)}")


@compiled
def _add(x: Any, slot: Any, center: float, scale: float, sums: Any, ranges: Any) -> int:
    """1 if a slot is too large, else 0. Neighbours of one slot, as most are, are summed in registers."""
    factor = (1 << FRACTION) / scale
    row = 0
    while row < len(x):
        at = slot[row]
        if at >= len(sums):
            return 1
        if at < 0:
            row += 1
            continue
        least, greatest = ranges[at, 0], ranges[at, 1]
        count = first = high = low = np.int64(0)
        while row < len(x) and slot[row] == at:
            value = x[row]
            row += 1
            if value != value:
                continue
            least, greatest = min(least, value), max(greatest, value)
            if abs(value) == np.inf:
                continue
            q = np.int64(np.rint(min(max((value - center) * factor, -_LIMIT), _LIMIT)))
            count += 1
            first += q
            high += q * q >> 32
            low += q * q & _LOW
        ranges[at, 0], ranges[at, 1] = least, greatest
        sums[at, 0] += count
        sums[at, 1] += first
        sums[at, 2] += high
        sums[at, 3] += low
    return 0


def mean_and_variance(sums: Sums, center: float, scale: float) -> tuple[float, float] | None:
    """Of one row of `sums`; population variance; None without values."""
    count, first, high, low = sums.tolist()
    if not count:
        return None
    squares = (high << 32) + low
    unit = scale / (1 << FRACTION)
    mean = center + first / count * unit
    variance = (squares * count - first * first) / (count * count) * unit * unit
    return (mean, variance) if math.isfinite(mean) and math.isfinite(variance) else None
