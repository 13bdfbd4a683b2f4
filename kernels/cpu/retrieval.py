"""Cosine top-k on the processor: BLAS for candidates, and the exact scores that settle their order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Rows = NDArray[np.int64]

BLOCK_SCORES = 1 << 20
"""Scores that are held at a time."""
LANES = 32


def candidates(
    vectors: Singles, inverse: Singles, queries: Singles, k: int
) -> tuple[Rows, Singles]:
    """Of each query the k rows with the largest float32 score, in any order, and the scores; k <= n.

    Of rows with equal scores any may be left out. vectors: (n, d), inverse: (n,), queries: (count, d).
    """
    count = len(queries)
    rows = np.empty((count, 0), np.int64)
    scores = np.empty((count, 0), np.float32)
    step = max(k, BLOCK_SCORES // max(1, count))
    for first in range(0, len(vectors), step):
        block = slice(first, first + step)
        here = (queries @ vectors[block].T) * inverse[block]
        kept = _largest(here, k)
        scores = np.concatenate([scores, np.take_along_axis(here, kept, 1)], axis=1)
        rows = np.concatenate([rows, kept + first], axis=1)
        best = _largest(scores, k)
        scores, rows = np.take_along_axis(scores, best, 1), np.take_along_axis(rows, best, 1)
    return rows, scores


def _largest(scores: Singles, k: int) -> Rows:
    """Places of the k largest of each row, all if there are fewer; in any order."""
    if scores.shape[1] <= k:
        places = np.arange(scores.shape[1], dtype=np.int64)
        return np.broadcast_to(places, scores.shape)
    return np.argpartition(scores, scores.shape[1] - k, axis=1)[:, -k:]


def rescored(
    vectors: Singles, inverse: Doubles, queries: Singles, inverse_query: Doubles, rows: Rows
) -> Doubles:
    """The cosine in double of each query with its candidates `rows` (count, each); -inf where a row is -1.

    Products are exact; their sum runs over 32 lanes and then a tree, as in `topk.cu`: the same bits there.
    """
    out = np.empty(rows.shape)
    _rescore(vectors, inverse, queries, inverse_query, rows, out)
    return out


def inverse_lengths(vectors: Singles) -> Doubles:
    """(n,): 1 / length of each row, 0 for a row of zeros, NaN for one that is not finite."""
    out = np.empty(len(vectors))
    _inverse_lengths(vectors, out)
    return out


@compiled
def _rescore(
    vectors: Any, inverse: Any, queries: Any, inverse_query: Any, rows: Any, out: Any
) -> None:
    lanes = np.empty(LANES)
    for query in range(rows.shape[0]):
        for place in range(rows.shape[1]):
            row = rows[query, place]
            if row < 0:
                out[query, place] = -np.inf
                continue
            total = _dot(vectors[row], queries[query], lanes)
            out[query, place] = total * inverse[row] * inverse_query[query]


@compiled
def _inverse_lengths(vectors: Any, out: Any) -> None:
    lanes = np.empty(LANES)
    for row in range(len(vectors)):
        squares = _dot(vectors[row], vectors[row], lanes)
        if 0.0 < squares < np.inf:
            out[row] = 1.0 / np.sqrt(squares)
        else:
            out[row] = 0.0 if squares == 0.0 else np.nan


@compiled
def _dot(x: Any, y: Any, lanes: Any) -> Any:
    whole = len(x) // LANES * LANES
    lanes[:] = 0.0
    for first in range(0, whole, LANES):
        for lane in range(LANES):
            lanes[lane] += np.float64(x[first + lane]) * np.float64(y[first + lane])
    for i in range(whole, len(x)):
        lanes[i - whole] += np.float64(x[i]) * np.float64(y[i])
    half = LANES // 2
    while half > 0:
        for lane in range(half):
            lanes[lane] += lanes[lane + half]
        half //= 2
    return lanes[0]
