"""The truth of batch scoring: a row at a time, a node at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAF = -1
MISSING_LEFT = 1 << 30


def trees_sum(
    nodes: NDArray[Any],
    roots: NDArray[np.int32],
    firsts: NDArray[np.int32],
    values: NDArray[Any],
    base: NDArray[Any],
    x: NDArray[Any],
    *,
    base_last: bool = False,
) -> NDArray[Any]:
    """Per row the sum of the leaves that it reaches: see `kernels.calls.models.TreeEnsemble`."""
    out = np.zeros((len(x), len(base)), values.dtype)
    if not base_last:
        out += base
    for row, mine in zip(x, out, strict=True):
        for root, first in zip(roots, firsts, strict=True):
            node = nodes[root]
            while node["feature"] != LEAF:
                value = float(row[node["feature"] & ~MISSING_LEFT])
                missing = bool(node["feature"] & MISSING_LEFT)
                left = missing if value != value else value <= node["threshold"]
                node = nodes[node["left"] + (not left)]
            leaf = values[node["left"]]
            mine[first : first + len(leaf)] += leaf
    return out + base if base_last else out


def linear_margins(
    center: NDArray[np.float32],
    weight: NDArray[np.float32],
    intercept: np.float32,
    x: NDArray[np.float32],
) -> NDArray[np.float32]:
    """intercept + sum of weight * (x - center), added feature by feature in float32; NaN counts nothing."""
    products = np.where(np.isnan(x), np.float32(0), x - center) * weight
    margin = np.zeros(len(x), np.float32)
    for place in range(x.shape[1]):
        margin = products[:, place] if place == 0 else margin + products[:, place]
    return margin + intercept
