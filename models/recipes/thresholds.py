"""Split thresholds in single precision that decide as the library's double precision does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LARGEST = np.finfo(np.float32).max


def round_down(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest finite float32 that is not above each value (the smallest finite one for -inf)."""
    clipped = np.clip(values, -_LARGEST, _LARGEST)
    single = clipped.astype(np.float32)
    above = single.astype(np.float64) > clipped
    return np.where(above, np.nextafter(single, np.float32(-np.inf)), single).astype(np.float32)
