"""The decision threshold at which wrong decisions cost least (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Choice:
    """`cost`: mean cost of a row at `threshold`; `before`: at the threshold that held so far."""

    threshold: float
    cost: float
    before: float


def choose_threshold(
    labels: NDArray[Any], scores: NDArray[np.float64], costs: tuple[float, float], now: float
) -> Choice:
    """Where to decide 1 (score >= threshold), by the cost of a false 1 and of a false 0.

    Thresholds lie in the middle between neighbouring scores; of equally cheap ones the nearest to `now`.
    Raises ValueError without rows.
    """
    if not len(scores):
        raise ValueError("no rows to choose a threshold by")
    values, place = np.unique(scores, return_inverse=True)
    ones = np.bincount(place, weights=labels, minlength=len(values))
    zeros = np.bincount(place, minlength=len(values)) - ones
    # candidate i decides 0 for values[:i] and 1 for the rest
    missed = np.concatenate([[0.0], np.cumsum(ones)])
    false_alarms = zeros.sum() - np.concatenate([[0.0], np.cumsum(zeros)])
    cost = np.round((costs[0] * false_alarms + costs[1] * missed) / len(scores), DECIMALS)
    between = (values[:-1] + values[1:]) / 2
    candidates = np.concatenate([[0.0], between, [1.0]])
    cheapest = np.flatnonzero(cost == cost.min())
    best = cheapest[np.argmin(np.abs(candidates[cheapest] - now))]
    decided = scores >= now
    wrong = costs[0] * (decided & (labels == 0)) + costs[1] * (~decided & (labels != 0))
    return Choice(
        round(float(candidates[best]), DECIMALS),
        float(cost[best]),
        round(float(wrong.mean()), DECIMALS),
    )
