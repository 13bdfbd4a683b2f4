"""Linear layers in signed bytes: the exact steps, in NumPy, that every device repeats bit by bit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.int8]
Singles = NDArray[np.float32]


def quantise_rows(x: Singles) -> tuple[Bytes, Singles]:
    """(n, k) float32 as bytes (n, k) and scales (n,), so that x is about bytes * scale; symmetric, 127 steps.

    scale = largest |x| of the row / 127; bytes are rounded to the nearest, ties to even. A row with a NaN or
    an infinity gets the scale NaN and bytes 0.
    """
    largest = np.abs(x).max(axis=1, initial=np.float32(0))
    scales = np.where(np.isfinite(largest), largest / np.float32(127), np.float32(np.nan))
    scales = scales.astype(np.float32)
    usable = (scales > 0)[:, None]
    with np.errstate(all="ignore"):
        steps = np.where(usable, np.rint(x / scales[:, None]), np.float32(0))
    return np.clip(steps, -127, 127).astype(np.int8), scales


def linear(x: Bytes, scale_x: Singles, w: Bytes, scale_w: Singles, bias: Singles) -> Singles:
    """float(x w^T) * (scale_x * scale_w) + bias, (m, n) float32. x: (m, k), w: (n, k), bias: (n,)."""
    sums = x.astype(np.int64) @ w.astype(np.int64).T
    scales = scale_x[:, None] * scale_w[None, :]
    return np.asarray(sums.astype(np.float32) * scales + bias)
