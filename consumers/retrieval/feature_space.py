"""Feature vectors as points: numbers standardised, a column per category; or an embedding as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Matrix = NDArray[np.float32]
Columns = Mapping[str, Sequence[Any]]

FARTHEST = 1e3
"""Standard deviations at which a number is cut: one wild value does not decide alone."""


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """Where feature vectors lie: made by `fit` from the rows that are to be compared.

    A number counts in standard deviations from its mean, a missing one as the mean. A category has 1 in its
    own column and 0 in the others, less the column's mean; a missing one is the mean of all.
    """

    center: Mapping[str, float]
    scale: Mapping[str, float]
    shares: Mapping[str, Mapping[str, float]]
    """Category feature -> category -> its share of the rows where the feature is known."""

    @classmethod
    def fit(cls, kinds: Mapping[str, str], columns: Columns) -> FeatureSpace:
        """`kinds`: feature -> 'double', 'string' or 'text' (which is no coordinate: it is left out).

        `columns`: its values, None or NaN is missing.
        """
        center, scale, shares = {}, {}, {}
        for name, kind in kinds.items():
            if kind == "double":
                center[name], scale[name] = _spread(_numbers(columns[name]))
            elif kind == "string":
                shares[name] = _shares(columns[name])
        return cls(center, scale, shares)

    @property
    def dimensions(self) -> int:
        """Columns of a point."""
        return len(self.center) + sum(map(len, self.shares.values()))

    def points(self, columns: Columns) -> Matrix:
        """(n, dimensions)."""
        parts = []
        for name, center in self.center.items():
            z = (_numbers(columns[name]) - center) / self.scale[name]
            parts.append(np.clip(np.nan_to_num(z, nan=0.0), -FARTHEST, FARTHEST)[:, None])
        for name, shares in self.shares.items():
            parts.append(_one_hot(columns[name], shares))
        return np.concatenate(parts, axis=1).astype(np.float32)


def embedding(columns: Columns, coordinates: Sequence[str]) -> tuple[Matrix, NDArray[np.bool_]]:
    """(n, d) as it was logged, and which rows have all coordinates (the others are zeros)."""
    matrix = np.array([_numbers(columns[name]) for name in coordinates]).T.astype(np.float32)
    whole: NDArray[np.bool_] = np.asarray(np.isfinite(matrix).all(axis=1))
    return np.where(whole[:, None], matrix, np.float32(0)), whole


def _one_hot(values: Sequence[Any], shares: Mapping[str, float]) -> Doubles:
    """1 in the category's column, less each column's share; zeros where the category is missing."""
    place = {category: column for column, category in enumerate(shares)}
    codes = np.array(
        [-1 if v is None else place.get(str(v), len(shares)) for v in values], np.int64
    )
    out = np.tile(-np.array(list(shares.values())), (len(values), 1))
    rows = np.flatnonzero((codes >= 0) & (codes < len(shares)))
    out[rows, codes[rows]] += 1.0
    out[codes < 0] = 0.0
    return out


def _numbers(values: Sequence[Any]) -> Doubles:
    return np.asarray(values, np.float64)  # None becomes NaN


def _spread(values: Doubles) -> tuple[float, float]:
    """Mean and standard deviation (1 for a constant) of the finite values."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return 0.0, 1.0
    center = float(finite.mean())
    scale = float(finite.std())
    return center, scale if scale > 1e-9 * abs(center) else 1.0


def _shares(values: Sequence[Any]) -> dict[str, float]:
    known = sorted(str(value) for value in values if value is not None)
    names, counts = np.unique(np.array(known, dtype=object), return_counts=True)
    return {str(n): int(c) / len(known) for n, c in zip(names, counts, strict=True)}
