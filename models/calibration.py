"""Calibration of scores on labelled rows: expected calibration error, slope and intercept (pure)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

BINS = 10
CLIP = 1e-6
DECIMALS = 9


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Rows whose score is in [low, low + 1 / BINS): what was said and what came, on average."""

    low: float
    count: int
    mean_score: float
    positive_rate: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """`error`: ECE; `by_chance`: the ECE to be expected if the scores were right; `slope` and `intercept`.

    Of right scores the slope is 1 and the intercept 0; a slope below 1 says that scores are too sure.
    """

    error: float
    by_chance: float
    slope: float
    intercept: float
    bins: tuple[CalibrationBin, ...]

    @property
    def excess(self) -> float:
        """The error beyond chance, at least 0: few rows make the best model look badly calibrated."""
        return round(max(0.0, self.error - self.by_chance), DECIMALS)


def calibration(labels: NDArray[np.int8], scores: NDArray[np.float64]) -> Calibration | None:
    """None without rows.

    ECE: Naeini, Cooper & Hauskrecht (2015), over BINS equal bins. Of right scores the sum of labels in a bin
    is off by a nearly normal amount of variance sum(p (1 - p)), of mean size sqrt(2 / pi) deviations.
    Slope and intercept: Cox (1958), the logistic regression of the label on the logit of the score.
    """
    n = len(labels)
    if not n:
        return None
    index = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts, said, came, variance = (
        np.bincount(index, weights=weights, minlength=BINS)
        for weights in (np.ones(n), scores, labels.astype(np.float64), scores * (1 - scores))
    )
    gaps = np.abs(came - said)
    chance = np.sqrt(2 / math.pi * variance)
    slope, intercept = _slope(labels, scores)
    bins = tuple(
        CalibrationBin(b / BINS, int(counts[b]), said[b] / counts[b], came[b] / counts[b])
        for b in range(BINS)
        if counts[b]
    )
    return Calibration(
        round(math.fsum(gaps.tolist()) / n, DECIMALS),
        round(math.fsum(chance.tolist()) / n, DECIMALS),
        slope,
        intercept,
        bins,
    )


def _slope(labels: NDArray[np.int8], scores: NDArray[np.float64]) -> tuple[float, float]:
    """(1, 0) where nothing can be told: one label alone, or the same score for every row."""
    p = np.clip(scores, CLIP, 1 - CLIP)
    logits = np.log(p) - np.log1p(-p)
    if len(np.unique(labels)) < 2 or np.ptp(logits) == 0:
        return 1.0, 0.0
    model = LogisticRegression(C=np.inf, max_iter=1000).fit(logits.reshape(-1, 1), labels)
    return round(float(model.coef_[0, 0]), 6), round(float(model.intercept_[0]), 6)
