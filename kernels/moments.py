"""Running moments of a column, added up in row order: where a batch ends changes no bit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Floats = NDArray[np.float64]


def no_moments(slots: int) -> Floats:
    """Moments of nothing, shape (slots, 4): what `moments` is begun with."""
    return np.tile(np.array([0.0, 0.0, np.inf, -np.inf]), (slots, 1))


def moments(x: Floats, slot: NDArray[np.int32], center: float, out: Floats) -> None:
    """Add a column to `out`, in place: sum(x - center), sum((x - center)^2), min(x), max(x) per slot.

    x: (n,); NaN is skipped; infinities count for min and max alone. slot: (n,), row of `out`, negative for
    none. out: (s, 4), see `no_moments`. Each sum is one chain of additions in row order: to be bit-equal,
    two runs must see the same rows in the same order (a partition's offsets), in batches of any size.
    A center near the values keeps the squares small, and the variance exact. Raises ValueError if shapes do
    not fit, IndexError if a slot is not below s.
    """
    if len(slot) != len(x) or out.shape[1:] != (4,):
        raise ValueError(f"{len(x)} values, {len(slot)} slots and moments of shape {out.shape}")
    if _moments(x, slot, center, out):
        raise IndexError(f"slot {slot.max()} of {len(out)}")


@compiled
def _moments(x: Any, slot: Any, center: Any, out: Any) -> int:
    row = -1
    first = second = low = high = 0.0
    for i in range(len(x)):
        if slot[i] != row:  # the sums of a run of rows stay in registers
            if row >= 0:
                out[row, 0], out[row, 1], out[row, 2], out[row, 3] = first, second, low, high
            row = slot[i]
            if row >= len(out):
                return 1
            if row >= 0:
                first, second, low, high = out[row, 0], out[row, 1], out[row, 2], out[row, 3]
        value = x[i]
        if row >= 0 and value == value:
            if abs(value) != np.inf:
                gap = value - center
                first += gap
                second += gap * gap
            low = value if value < low else low
            high = value if value > high else high
    if row >= 0:
        out[row, 0], out[row, 1], out[row, 2], out[row, 3] = first, second, low, high
    return 0
