"""Quality of a model's predictions in one window, from histograms of its scores by label and exact sums."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammainccinv

from streams.reference import DECIMALS
from streams.task import Task

FIXED_POINT = 1_000_000
CALIBRATION_BINS = 10
LEAST_SKEWNESS = 1e-3

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Performance:
    """Measures of one window; None where there is nothing to measure (see PerformanceMeasured)."""

    positive_rate: float | None = None
    mean_score: float | None = None
    log_loss: float | None = None
    brier: float | None = None
    auc: float | None = None
    calibration_error: float | None = None
    expected_log_loss: float | None = None
    threshold: float | None = None

    @property
    def degraded(self) -> bool:
        return (
            self.log_loss is not None
            and self.threshold is not None
            and self.log_loss > self.threshold
        )

    @property
    def pressure(self) -> float | None:
        """Excess of the log-loss over the expected, as a share of what the threshold allows."""
        if self.log_loss is None or self.expected_log_loss is None or self.threshold is None:
            return None
        allowed = max(self.threshold - self.expected_log_loss, 1e-6)
        return round((self.log_loss - self.expected_log_loss) / allowed, DECIMALS)


def measure(
    sketch: Mapping[str, Any], expected: float | None, task: Task, rows: float | None = None
) -> Performance:
    """Measure an 'outcomes' SketchTaken of a model whose log-loss at registration was `expected`.

    `rows`: on how many rows that was measured; None if nobody knows.
    """
    by_label = {column["name"]: column["counts"] for column in sketch["columns"]}
    negatives = np.asarray(by_label["score|0"], dtype=np.int64)
    positives = np.asarray(by_label["score|1"], dtype=np.int64)
    labelled = int(negatives.sum() + positives.sum())
    if labelled == 0:
        return Performance(expected_log_loss=expected)
    totals = sketch["totals"]
    return Performance(
        positive_rate=_rounded(totals["positives"] / labelled),
        mean_score=_mean(totals["score"], labelled),
        log_loss=_mean(totals["log_loss"], labelled),
        brier=_mean(totals["brier"], labelled),
        auc=binned_auc(negatives, positives),
        calibration_error=calibration_error(negatives, positives),
        expected_log_loss=expected,
        threshold=None
        if expected is None
        else log_loss_threshold(expected, negatives + positives, task, rows),
    )


def binned_auc(negatives: Counts, positives: Counts) -> float | None:
    """Area under the ROC curve of two histograms of scores (same ascending bins); None with one class.

    The share of (negative, positive) pairs that are in order; a pair within one bin counts half
    (Mann-Whitney U with ties), so it is within half the share of tied pairs of the exact one.
    """
    pairs = int(negatives.sum()) * int(positives.sum())
    if pairs == 0:
        return None
    below = np.cumsum(negatives) - negatives
    twice = int(np.sum(positives * (2 * below + negatives)))  # integers: exact
    return _rounded(twice / (2 * pairs))


def calibration_error(negatives: Counts, positives: Counts) -> float:
    """Expected calibration error over CALIBRATION_BINS equal score bins, 0..1.

    Source: Naeini, Cooper & Hauskrecht (2015): the mean over rows of |share of positives - mean score| of
    the row's bin. The mean score is taken from the middles of the finer bins that are merged, so it is
    exact to half of their width.
    """
    rows = negatives + positives
    gaps = np.abs(_merged(positives) - _merged(rows * bin_middles(len(rows))))
    return _rounded(math.fsum(gaps.tolist()) / int(rows.sum()))


def log_loss_threshold(
    expected: float, scores: Counts, task: Task, rows: float | None = None
) -> float:
    """The log-loss above which a window of `scores` (histogram of labelled rows) is a degradation.

    expected * max_log_loss_ratio + q s sqrt(1/n + 1/rows), s being the standard deviation of one row's loss
    if the model were right: with score p the loss has the mean H(p) (entropy), the variance
    p (1-p) logit(p)^2 and the third moment p (1-p) (2p-1) logit(p)^3. `rows` (None: so many that it does not
    matter) are those behind `expected`. q is the 1 - alpha quantile of a gamma distribution (Pearson III)
    with the skewness of the mean of n rows: where positives are rare, a few of them make a loss that
    the normal distribution calls impossible.
    """
    n = int(scores.sum())
    p = bin_middles(len(scores))
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p))
    logit = np.log(p) - np.log1p(-p)
    within = p * (1 - p) * logit**2
    mean_entropy = _dot(scores, entropy) / n
    apart = entropy - mean_entropy
    variance = _dot(scores, within + apart**2) / n
    third = _dot(scores, within * (2 * p - 1) * logit + 3 * within * apart + apart**3) / n
    q = _upper_quantile(task.drift.alpha, third / variance**1.5 / math.sqrt(n))
    allowance = q * math.sqrt(variance * (1 / n + (1 / rows if rows else 0.0)))
    return _rounded(expected * task.retrain.max_log_loss_ratio + allowance)


def _upper_quantile(alpha: float, skewness: float) -> float:
    """1 - alpha quantile of a standardised gamma distribution; of the normal one if it is not skewed up."""
    if skewness <= LEAST_SKEWNESS:
        return statistics.NormalDist().inv_cdf(1 - alpha)
    shape = 4 / skewness**2
    return (float(gammainccinv(shape, alpha)) - shape) / math.sqrt(shape)


def change_detected(pressures: Sequence[float]) -> bool:
    """True if Page-Hinkley raises an alarm at the last of these window pressures (see Performance).

    Page (1954) as in `river.drift.PageHinkley`, upwards only. In units of pressure (1 = at the threshold):
    a rise of 0.25 above the version's own mean is tolerated, the sum of what exceeds it may reach 2. So
    a lasting degradation is found that stays below the threshold of any single window.
    """
    from river.drift import PageHinkley  # takes seconds to import

    detector: Any = PageHinkley(min_instances=5, delta=0.25, threshold=2.0, alpha=1.0, mode="up")
    for pressure in pressures:
        detector.update(pressure)
    return bool(detector.drift_detected)


def bin_middles(bins: int) -> NDArray[np.float64]:
    """Middles of `bins` equal bins of [0, 1]."""
    return (np.arange(bins) + 0.5) / bins


def _merged(values: NDArray[Any]) -> NDArray[Any]:
    groups = np.arange(len(values)) * CALIBRATION_BINS // len(values)
    return np.bincount(groups, weights=values, minlength=CALIBRATION_BINS)


def _dot(counts: Counts, values: NDArray[np.float64]) -> float:
    return math.fsum((counts * values).tolist())


def _mean(total: int, rows: int) -> float:
    return _rounded(total / FIXED_POINT / rows)


def _rounded(value: float) -> float:
    return round(value, DECIMALS)
