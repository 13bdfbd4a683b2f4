"""Windows, histograms and scores in NumPy: what the contenders in Python share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_windows.job import Job, Score


def psi(counts: NDArray[np.int64], reference: NDArray[np.int64]) -> NDArray[np.float64]:
    """`kernels.reference.psi` of each row: (columns, bins) against (columns, bins) gives (columns,).

    Written anew, because the environments of some contenders hold NumPy and little else.
    """
    n, m = counts.sum(axis=1, keepdims=True), reference.sum(axis=1, keepdims=True)
    filled = counts + reference > 0
    bins = filled.sum(axis=1, keepdims=True)
    weight = bins / 2 / (np.minimum(n, m) + bins / 2)
    p = (1 - weight) * counts / n + weight / bins
    q = (1 - weight) * reference / m + weight / bins
    return np.maximum(0, np.where(filled, (p - q) * np.log(p / q), 0).sum(axis=1))


class Scorer:
    """The PSI of a window's histograms against the reference."""

    def __init__(self, job: Job) -> None:
        self._names = [str(column["name"]) for column in job.reference]
        self._whole = np.array([[*column["counts"], column["missing"]] for column in job.reference])

    def __call__(self, model: str, start: int, counts: Any) -> list[Score]:
        """`counts`: (columns, bins + 1), the missing last."""
        found = psi(np.asarray(counts), self._whole).tolist()
        return [(model, start, name, value) for name, value in zip(self._names, found, strict=True)]


class Watermarks:
    """Per partition, how far event time has come."""

    def __init__(self, job: Job) -> None:
        self._width, self._lateness = job.window_ms, job.lateness_ms
        self.seen = [-1] * len(job.ends)

    def closed_before(self) -> int:
        """Windows that start before this are closed in every partition."""
        return (min(self.seen) - self._lateness) // self._width * self._width


class NumpyWindows:
    """Tumbling windows over batches of columns."""

    def __init__(self, job: Job) -> None:
        self._start, self._width = job.start_ms, job.window_ms
        self._edges = [np.array(column["edges"]) for column in job.reference]
        self._bins = len(self._edges[0]) + 2
        self._models = job.models
        self._windows: dict[int, NDArray[np.int64]] = {}
        """Window start -> counts (model, column, bin)."""
        self._marks = Watermarks(job)
        self._score = Scorer(job)
        self.scores: list[Score] = []

    def add(
        self,
        partition: NDArray[np.int64],
        time: NDArray[np.int64],
        model: NDArray[np.int64],
        values: Sequence[NDArray[np.float64]],
    ) -> None:
        """Shapes (n,); `model` indexes the job's models, `values` holds an array per column, NaN for null."""
        window = (time - self._start) // self._width
        first = int(window.min())
        group = (window - first) * len(self._models) + model
        groups = int(group.max()) + 1
        columns = len(self._edges)
        counts = np.empty((groups, columns, self._bins), np.int64)
        for place, (edges, column) in enumerate(zip(self._edges, values, strict=True)):
            index = np.searchsorted(edges, column, side="right")  # NaN sorts last
            index[np.isnan(column)] = self._bins - 1
            counts[:, place] = np.bincount(
                group * self._bins + index, minlength=groups * self._bins
            ).reshape(groups, self._bins)
        for number in np.unique(group).tolist():
            ahead, which = divmod(number, len(self._models))
            start = self._start + (first + ahead) * self._width
            whole = self._windows.get(start)
            if whole is None:
                shape = len(self._models), columns, self._bins
                whole = self._windows[start] = np.zeros(shape, np.int64)
            whole[which] += counts[number]
        for number in np.unique(partition).tolist():
            furthest = int(time[partition == number].max())
            self._marks.seen[number] = max(furthest, self._marks.seen[number])
        self._close()

    def _close(self) -> None:
        before = self._marks.closed_before()
        for start in sorted(start for start in self._windows if start < before):
            for model, counts in zip(self._models, self._windows.pop(start), strict=True):
                self.scores += self._score(model, start, counts)
