"""Exact cosine top-k: `CosineIndex` holds rows, `topk` finds the nearest ones of each query, on any device.

Why devices agree to the last bit: a device only proposes. It scores in float32, where for lengths of 1 a sum
of d products errs by less than d * 2^-24 in any order (Higham, "Accuracy and stability of numerical
algorithms", section 3.1), and names more rows than asked for. Those are scored again in float64, in an order
that is the same everywhere. If the k-th of them lies above the least float32 score among them by more than
that bound, then no other row can belong to the k best; else (many rows alike) all are scored in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kernels import dispatch
from kernels.calls.cosine_index import CosineIndex, DeviceIndex, Index, finite, matrix, scaled
from kernels.cpu import retrieval as cpu
from kernels.cpu.retrieval import Doubles, Rows, Singles

__all__ = ["CosineIndex", "Neighbours", "settled", "topk"]

MARGIN = 22
"""Candidates beyond k: with k = 10 as many as a warp sorts at once."""
UNIT = 2.0**-24
ALL_ROWS = 1 << 20
"""Rows that are scored in float64 at a time where all have to be."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Of each query the nearest rows, nearest first; of equal cosines the smaller row first."""

    rows: Rows
    """(queries, min(k, n))."""
    cosines: Doubles
    """(queries, min(k, n)), -1 .. 1."""


def topk(queries: Any, index: CosineIndex | Any, k: int) -> Neighbours:
    """The k rows of `index` with the largest cosine to each query; exact, and the same on every device.

    queries: (count, d) or (d,), any float type, taken as float32. index: a CosineIndex, or rows (n, d), here
    or on a GPU (see `DeviceIndex`). Raises ValueError for shapes that do not fit, values that are not finite,
    k < 1.
    """
    known = _index(index)
    asked = np.asarray(queries, np.float32)
    asked = scaled(matrix("queries", asked[None] if asked.ndim == 1 else asked))
    if asked.shape[1] != known.dimensions:
        raise ValueError(f"queries of {asked.shape[1]} columns, an index of {known.dimensions}")
    if k < 1:
        raise ValueError(f"the nearest {k}")
    inverse = finite("queries", cpu.inverse_lengths(asked))
    most = min(k, len(known))
    if most == 0 or len(asked) == 0:
        return Neighbours(np.empty((len(asked), most), np.int64), np.empty((len(asked), most)))
    units = (asked * inverse[:, None]).astype(np.float32)
    rows, scores = known.candidates(units, min(k + MARGIN, len(known)))
    return settled(known, asked, inverse, rows, scores, most)


def _index(given: Any) -> Index:
    if isinstance(given, CosineIndex | DeviceIndex):
        return given
    on_gpu = hasattr(given, "__cuda_array_interface__")
    return DeviceIndex(given) if on_gpu else CosineIndex(given)


def settled(
    index: Index, queries: Singles, inverse: Doubles, rows: Rows, scores: Singles, k: int
) -> Neighbours:
    """The k best of the candidates, or of all rows where the candidates leave a doubt."""
    exact = index.rescored(queries, inverse, rows)
    found, cosines = _sorted(rows, exact, k)
    if rows.shape[1] < len(index):
        bound = scores.min(axis=1) + (index.dimensions + 16) * UNIT
        for query in np.flatnonzero(cosines[:, -1] <= bound):
            found[query], cosines[query] = _of_all(index, queries[query], inverse[query], k)
            dispatch.count("topk, all rows in float64")
    return Neighbours(found, np.clip(cosines, -1.0, 1.0))


def _of_all(index: Index, query: Singles, inverse: float, k: int) -> tuple[Rows, Doubles]:
    """The k best of all rows, scored in float64."""
    rows, cosines = np.empty((1, 0), np.int64), np.empty((1, 0))
    scale = np.array([inverse])
    for first in range(0, len(index), ALL_ROWS):
        more = np.arange(first, min(first + ALL_ROWS, len(index)))[None]
        exact = index.rescored(query[None], scale, more)
        rows, cosines = np.concatenate([rows, more], 1), np.concatenate([cosines, exact], 1)
        rows, cosines = _sorted(rows, cosines, k)
    return rows[0], cosines[0]


def _sorted(rows: Rows, cosines: Doubles, k: int) -> tuple[Rows, Doubles]:
    order = np.lexsort((rows, -cosines), axis=1)[:, :k]
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)
