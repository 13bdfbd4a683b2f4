"""How far windows lie from their references: all columns of many windows in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import kernels
from streams.reference import chance_quantile, histogram_with_missing, swing_limit, threshold_from
from streams.task import DriftPolicy


class Drift(NamedTuple):
    """Distances of a column's window from its reference (see `kernels.reference`), and the verdict."""

    psi: float
    ks: float
    js: float
    threshold: float
    drifted: bool


class Yardstick:
    """The reference columns of a model, made ready to hold windows against."""

    def __init__(
        self, reference: Sequence[Mapping[str, Any]], n_columns: int, policy: DriftPolicy
    ) -> None:
        """`n_columns`: how many are judged together (see `psi_threshold`)."""
        histograms = [histogram_with_missing(column) for column in reference]
        self._policy = policy
        self.sizes = np.array([len(h) for h in histograms], np.int64)
        self.counts = padded(histograms, int(self.sizes.max(initial=1)))
        self._rows = [max(sum(h), 1) for h in histograms]
        self._swing = [swing_limit(column, n_columns, policy) for column in reference]
        self._chance = [chance_quantile(column, n_columns, policy) for column in reference]

    def threshold(self, place: int, n: int) -> float:
        """`psi_threshold` of a window of `n` rows in column `place`."""
        known = self._chance[place], self._rows[place], self._swing[place]
        return threshold_from(*known, max(n, 1), self._policy)


Window = tuple[Yardstick, Sequence[Sequence[int]]]
"""What it is held against, and the counts of each of its columns, the missing as one more bin."""


def compare(windows: Sequence[Window], policy: DriftPolicy) -> list[list[Drift]]:
    """For each window a `Drift` per column of its reference.

    A window of fewer than `min_rows` rows is measured but never counts as drifted.
    """
    if not windows:
        return []
    width = max(yardstick.counts.shape[1] for yardstick, _ in windows)
    rows = [histogram for _, columns in windows for histogram in columns]
    counts = padded(rows, width)
    found = kernels.distances(
        counts,
        np.concatenate([_widened(yardstick.counts, width) for yardstick, _ in windows]),
        np.concatenate([yardstick.sizes for yardstick, _ in windows]),
    )
    numbers = iter(
        zip(
            counts.sum(axis=1).tolist(),
            found.psi.tolist(),
            found.ks.tolist(),
            found.js.tolist(),
            strict=True,
        )
    )
    answers = []
    for yardstick, columns in windows:
        drifts = []
        for place in range(len(columns)):
            n, psi, ks, js = next(numbers)
            threshold = yardstick.threshold(place, n)
            drifts.append(Drift(psi, ks, js, threshold, psi > threshold and n >= policy.min_rows))
        answers.append(drifts)
    return answers


def score_drift(
    reference: Mapping[str, Any], column: Mapping[str, Any], n_columns: int, policy: DriftPolicy
) -> Drift:
    """Compare one column's counts with its `ReferenceColumn`; the missing are one more bin on both sides."""
    yardstick = Yardstick([reference], n_columns, policy)
    return compare([(yardstick, [histogram_with_missing(column)])], policy)[0][0]


def padded(histograms: Sequence[Sequence[int]], width: int) -> NDArray[np.int64]:
    """One row per histogram, filled up with zeros."""
    rows = [[*histogram, *[0] * (width - len(histogram))] for histogram in histograms]
    return np.array(rows, np.int64).reshape(len(rows), width)


def _widened(counts: NDArray[np.int64], width: int) -> NDArray[np.int64]:
    missing = width - counts.shape[1]
    return np.pad(counts, ((0, 0), (0, missing))) if missing else counts
