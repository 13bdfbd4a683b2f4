"""How mature labels are: of the labels that will come, the share that has come (pure).

What is judged on early labels is judged on what is quick to know: a flight that lands in time is known
before one that is late.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

DECIMALS = 6


def delay_curve(
    times: NDArray[np.int64], label_times: NDArray[np.int64], until: int, longest_ms: int
) -> NDArray[np.int64]:
    """Sorted label delays (ms) of predictions so old, `longest_ms`, that no label is still to come."""
    old = times <= until - longest_ms
    return np.sort(label_times[old] - times[old])


def maturity(curve: NDArray[np.int64], ages: NDArray[np.int64]) -> float | None:
    """Share (0..1) of the labels of these predictions that is known; None without a curve or rows.

    `ages` (ms) are those of the labelled predictions. A label that came to a prediction of age a had the
    chance F(a) to be there, F being the curve, so it stands for 1 / F(a) predictions (Horvitz & Thompson
    1952). F is held above 1 / (n + 1): a delay that was never seen is rare, not impossible.
    """
    if not len(curve) or not len(ages):
        return None
    arrived = np.searchsorted(curve, ages, side="right") / len(curve)
    behind = math.fsum((1 / np.maximum(arrived, 1 / (len(curve) + 1))).tolist())
    return round(len(ages) / behind, DECIMALS)
