"""Which windows of a dataset break what the task expects of its features (pure).

The same expectations that are held against live windows' sketches (`streams.quality`), here from the rows:
windows of a model version without a reference, as a task's first one, have no sketches of their columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset
from streams.expectations import QUARANTINE, Expect
from streams.quality import expected_checks
from streams.quarantine import Span
from streams.task import Task


def failing_windows(task: Task, rows: Dataset) -> list[Span]:
    """The windows with a failed expectation of severity 'quarantine', by time; the reason says which.

    Unseen categories are known only beside a model's reference and are not looked for.
    """
    expected = {n: e for n, e in task.expected.items() if e.severity == QUARANTINE}
    if not expected or not len(rows):
        return []
    starts = rows.times // task.window_ms
    found = []
    for start in np.unique(starts):
        here = starts == start
        failures = []
        for name, expect in expected.items():
            failures += _failures(name, expect, rows.columns[name][here])
        if failures:
            begin = int(start) * task.window_ms
            found.append(Span(begin, begin + task.window_ms, "; ".join(failures)))
    return found


def inside(times: NDArray[np.int64], spans: Iterable[Span]) -> NDArray[np.bool_]:
    """Which moments (ms) lie in one of the spans."""
    found = np.zeros(len(times), np.bool_)
    for span in spans:
        found |= (times >= span.from_time) & (times < span.to_time)
    return found


def _failures(name: str, expect: Expect, values: NDArray[Any]) -> list[str]:
    bounds = None
    if values.dtype == object:
        known = [str(value) for value in values if value is not None]
        _, counts = np.unique(np.array(known, dtype=str), return_counts=True)
        categories, filled = ["any"], counts.tolist()
    else:
        numbers = values[~np.isnan(values)]
        categories, filled = [], [len(numbers)]
        if len(numbers):
            bounds = float(numbers.min()), float(numbers.max())
    missing = len(values) - sum(filled)
    column = {"counts": filled, "missing": missing, "unseen": 0}
    reference = {"name": name, "categories": categories}
    checks = expected_checks(expect, reference, column, bounds)
    return [check.message for check in checks if not check.passed]
