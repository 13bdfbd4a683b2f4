"""One number per row out of many columns: distances from what the reference usually looks like.

Each row's sums run over its columns in order, whatever the batch: rows lie side by side in the inner loop, so
that the processor computes several at once without changing the order within any of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Floats = NDArray[np.float64]

ROWS = 128
FARTHEST = 1e6
"""Scaled values are cut here: an infinity is far away, and no sum overflows."""


def reconstruction_error(
    x: Floats, center: Floats, scale: Floats, components: Floats, *, impute: bool
) -> Floats:
    """How far each row lies from the plane that the components span, shape (n,), >= 0.

    x: (d, n). center, scale: (d,). components: (c, d), orthonormal rows. With z = (x - center) / scale and
    its projection p = components^T components z, the error is |z - p| (Euclidean): the root of the squared
    prediction error of Jackson & Mudholkar, "Control procedures for residuals associated with principal
    component analysis" (1979). A NaN becomes the center if `impute`; else the row's error is NaN.
    """
    out = np.empty(x.shape[1])
    _errors(x, center, scale, components, 0.0 if impute else np.nan, out)
    return out


def cosine_distance(x: Floats, centroid: Floats) -> Floats:
    """1 - cos(row, centroid), shape (n,), 0 (same direction) .. 2; NaN for a row with a NaN or of zeros.

    x: (d, n). centroid: (d,), of length 1.
    """
    out = np.empty(x.shape[1])
    _cosines(x, centroid, out)
    return out


@compiled
def _errors(x: Any, center: Any, scale: Any, components: Any, absent: Any, out: Any) -> None:
    d, n = x.shape
    z = np.zeros((d, ROWS))
    along = np.empty((len(components), ROWS))
    rest = np.empty(ROWS)
    for start in range(0, n, ROWS):
        m = min(ROWS, n - start)
        for j in range(d):
            _standardise(x[j, start : start + m], center[j], scale[j], absent, z[j])
        for c in range(len(components)):
            along[c] = 0.0
            for j in range(d):
                _add(z[j], components[c, j], along[c])
        error = out[start : start + m]
        error[:] = 0.0
        for j in range(d):
            rest[:] = z[j]
            for c in range(len(components)):
                _add(along[c], -components[c, j], rest)
            for r in range(m):
                error[r] += rest[r] * rest[r]
        for r in range(m):
            error[r] = np.sqrt(error[r])


@compiled
def _standardise(x: Any, center: Any, scale: Any, absent: Any, z: Any) -> None:
    for r in range(len(x)):
        value = (x[r] - center) / scale
        value = FARTHEST if value > FARTHEST else value
        value = -FARTHEST if value < -FARTHEST else value
        z[r] = value if value == value else absent


@compiled
def _add(x: Any, weight: Any, total: Any) -> None:
    """total += weight x, over all ROWS: beyond a short block's end lies what nobody reads."""
    for r in range(ROWS):
        total[r] += x[r] * weight


@compiled
def _cosines(x: Any, centroid: Any, out: Any) -> None:
    d, n = x.shape
    length = np.empty(ROWS)
    along = np.empty(ROWS)
    for start in range(0, n, ROWS):
        m = min(ROWS, n - start)
        length[:] = 0.0
        along[:] = 0.0
        for j in range(d):
            row, weight = x[j, start : start + m], centroid[j]
            for r in range(m):
                length[r] += row[r] * row[r]
                along[r] += row[r] * weight
        for r in range(m):
            out[start + r] = 1.0 - along[r] / np.sqrt(length[r])
