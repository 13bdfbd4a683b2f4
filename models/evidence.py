"""What is measured about a challenger and the champion on rows that neither learned from. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import fairness, gates
from models.calibration import calibration
from models.dataset import Dataset
from models.gates import Losses
from models.intervals import Interval, block_interval, blocks_of
from models.maturity import delay_curve, maturity
from models.measures import CALIBRATION, FAIRNESS, SLICE, UNLABELLED, Measure
from streams.task import Task

MOST_SLICES = 40
"""Values of a category that are slices, the most frequent first."""
LEAST_CURVE = 50
"""Labels that must be behind a curve of delays."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows and what both models say of them (n scores each)."""

    rows: Dataset
    challenger: NDArray[np.float64]
    champion: NDArray[np.float64]

    def losses(self, task: Task, known: float | None = None) -> Losses:
        """Mean log-losses, and the interval of their difference over blocks of the task's window."""
        labels = self.rows.labels
        return Losses(
            gates.log_loss(labels, self.challenger),
            gates.log_loss(labels, self.champion),
            len(self.rows),
            self._difference(task),
            known,
        )

    def _difference(self, task: Task) -> Interval | None:
        differences = gates.losses(self.rows.labels, self.challenger) - gates.losses(
            self.rows.labels, self.champion
        )
        return block_interval(differences, blocks_of(self.rows.times, task.window_ms))

    def where(self, mask: NDArray[np.bool_]) -> Judged:
        return Judged(self.rows.where(mask), self.challenger[mask], self.champion[mask])


def maturity_of(task: Task, rows: Dataset, recent: Dataset, until: int) -> float | None:
    """Share of the labels of `recent` that was known at `until`, by the delays of the older `rows`."""
    curve = delay_curve(rows.times, rows.label_times, until, task.label_delay_ms)
    return maturity(curve, until - recent.times) if len(curve) >= LEAST_CURVE else None


def beyond_losses(task: Task, recent: Judged, known: float | None) -> list[Measure]:
    """Maturity, calibration, and the slices and groups that the task's gate policy declares."""
    missing = Measure(
        UNLABELLED, 1 - known if known is not None else 1.0, None, len(recent.rows), maturity=known
    )
    return [missing, *_calibrations(recent), *_slices(task, recent), *_fairness(task, recent)]


def _calibrations(recent: Judged) -> list[Measure]:
    labels = recent.rows.labels
    found = calibration(labels, recent.challenger)
    before = calibration(labels, recent.champion)
    if found is None or before is None:
        return []
    return [Measure(CALIBRATION, found.excess, before.excess, len(labels))]


def _slices(task: Task, recent: Judged) -> list[Measure]:
    measures = []
    for column in task.gate.slices:
        values = recent.rows.columns[column]
        known = [value for value in values if value is not None]
        names, counts = np.unique(np.array(known, dtype=str), return_counts=True)
        order = np.lexsort((names, -counts))[:MOST_SLICES]
        for name in names[order][counts[order] >= task.gate.min_rows].tolist():
            found = recent.where(values == name).losses(task)
            measures.append(found.measure(f"{SLICE}{column}.{name}"))
    return measures


def _fairness(task: Task, recent: Judged) -> list[Measure]:
    policy = task.gate.fairness
    if policy is None:
        return []
    groups = recent.rows.columns[policy.group]
    large = recent.where(fairness.large_groups(groups, policy.min_rows))
    groups = large.rows.columns[policy.group]
    value, before = (
        fairness.gap(policy.metric, large.rows.labels, scores >= task.decision_threshold, groups)
        for scores in (large.challenger, large.champion)
    )
    return [Measure(f"{FAIRNESS}{policy.metric}.{policy.group}", value, before, len(large.rows))]
