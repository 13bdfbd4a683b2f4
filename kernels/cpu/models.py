"""Batch scoring on the processor, compiled: trees by blocks of rows, so that a tree stays in the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

ROWS = 256
"""Rows that go through one tree before the next."""


def trees_sum(
    nodes: NDArray[Any],
    roots: NDArray[np.int32],
    firsts: NDArray[np.int32],
    values: NDArray[Any],
    base: NDArray[Any],
    x: NDArray[Any],
    *,
    base_last: bool,
) -> NDArray[Any]:
    """As `kernels.reference.models.trees_sum`, bit by bit."""
    out = np.zeros((len(x), len(base)), values.dtype)
    if not base_last:
        out += base
    threshold, feature, left = map(
        np.ascontiguousarray, (nodes["threshold"], nodes["feature"], nodes["left"])
    )
    _trees_sum(threshold, feature, left, roots, firsts, values, x, out)
    if base_last:
        out += base
    return out


def linear_margins(
    center: NDArray[np.float32],
    weight: NDArray[np.float32],
    intercept: np.float32,
    x: NDArray[np.float32],
) -> NDArray[np.float32]:
    """As `kernels.reference.models.linear_margins`, bit by bit."""
    out = np.empty(len(x), np.float32)
    _linear_margins(center, weight, np.float32(intercept), x, out)
    return out


@compiled
def _trees_sum(
    threshold: Any, feature: Any, left: Any, roots: Any, firsts: Any, values: Any, x: Any, out: Any
) -> None:
    width = values.shape[1]
    for start in range(0, len(x), ROWS):
        stop = min(len(x), start + ROWS)
        for tree in range(len(roots)):
            first = firsts[tree]
            for row in range(start, stop):
                at = roots[tree]
                split = feature[at]
                while split >= 0:
                    value = np.float64(x[row, split & 0x3FFFFFFF])
                    missing_left = (split >> 30) == 1
                    goes_left = value <= threshold[at] if value == value else missing_left
                    at = left[at] + (0 if goes_left else 1)
                    split = feature[at]
                leaf = left[at]
                for i in range(width):
                    out[row, first + i] += values[leaf, i]


@compiled
def _linear_margins(center: Any, weight: Any, intercept: Any, x: Any, out: Any) -> None:
    for row in range(len(x)):
        total = np.float32(0)
        for i in range(x.shape[1]):
            value = x[row, i]
            apart = value - center[i] if value == value else np.float32(0)
            product = apart * weight[i]
            total = product if i == 0 else total + product
        out[row] = total + intercept
