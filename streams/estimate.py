"""Performance without labels: what scores promise, bin by bin, if they mean what they used to (pure).

Confidence-based performance estimation (CBPE): the reference tells how often rows of each score bin were
positive and what they cost; a window's histogram of scores says how many rows of each bin there are. It
sees what a shift of the scores does to the loss. It cannot see that a score has come to mean another thing;
that shows when labels arrive, as the error of the estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from kernels.reference import bin_index
from streams.outcome_sums import LEAST_SCORE
from streams.reference import DECIMALS, MIN_WINDOWS

CONFIDENCE = 0.95
MEASURES = ("log_loss", "accuracy", "auc")
_Z = float(ndtri((1 + CONFIDENCE) / 2))


@dataclass(frozen=True, slots=True)
class Estimated:
    """One measure of a window: its value, the standard error of what will be realised, and its band."""

    value: float
    error: float

    @property
    def low(self) -> float:
        return round(self.value - _Z * self.error, DECIMALS)

    @property
    def high(self) -> float:
        return round(self.value + _Z * self.error, DECIMALS)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a window of scores promises; `auc` is None where one class is not to be expected."""

    positive_rate: float
    log_loss: Estimated
    accuracy: Estimated
    auc: Estimated | None


def calibration_map(
    scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    edges: Sequence[float],
    threshold: float,
) -> list[dict[str, Any]]:
    """CalibrationBins of held-out scores (n), one per bin of `edges` (the 'score' column's of the reference).

    Per bin and label: rows, mean and mean square of the log-loss, share that `threshold` decides rightly.
    `order`: chance that a positive row of the bin scores above a negative one, ties half.
    """
    p = np.clip(scores, LEAST_SCORE, 1 - LEAST_SCORE)
    losses = -np.where(labels, np.log(p), np.log1p(-p))
    correct = (scores >= threshold) == (labels == 1)
    index = bin_index(scores, list(edges))
    found = []
    for place in range(len(edges) + 1):
        entry: dict[str, Any] = {
            "order": rank_order(scores[index == place], labels[index == place])
        }
        for label, name in ((0, "negatives"), (1, "positives")):
            rows = (index == place) & (labels == label)
            count = int(rows.sum())
            entry[name] = count
            entry[f"log_loss_{label}"] = _mean(losses[rows])
            entry[f"squared_{label}"] = _mean(losses[rows] ** 2)
            entry[f"correct_{label}"] = _mean(correct[rows].astype(np.float64))
        found.append(entry)
    return found


def estimate(
    bins: Sequence[Mapping[str, Any]], counts: Sequence[int], usual: Mapping[str, float]
) -> Estimate | None:
    """The measures of a window with `counts` rows per bin; None without rows or for other bins.

    `usual`: measure -> how far the estimates of the reference's own windows were off beyond chance. Errors
    add up from three independent parts: the draw of n labels, the finite reference, and the usual error.
    """
    n = sum(counts)
    if n == 0 or len(counts) != len(bins):
        return None
    weight = np.asarray(counts, dtype=np.float64) / n
    negatives, positives = (_column(bins, name) for name in ("negatives", "positives"))
    rows = negatives + positives
    rate = _rate(positives, rows)
    loss = _blend(bins, rate, "log_loss")
    spread = np.maximum(_blend(bins, rate, "squared") - loss**2, 0.0)
    right = _blend(bins, rate, "correct")
    log_loss = _estimated("log_loss", weight, loss, spread, rows, n, usual)
    accuracy = _estimated("accuracy", weight, right, right * (1 - right), rows, n, usual)
    auc = _auc(bins, weight * n * rate, weight * n * (1 - rate), usual)
    return Estimate(round(_dot(weight, rate), DECIMALS), log_loss, accuracy, auc)


def usual_errors(
    bins: Sequence[Mapping[str, Any]],
    scores: NDArray[np.float64],
    labels: NDArray[np.int8],
    edges: Sequence[float],
    threshold: float,
    windows: NDArray[np.int64],
    min_rows: int,
) -> dict[str, float]:
    """Root mean square, over the reference's own windows, of realised - estimated, less what chance explains.

    Days hang together (weather), so that a day is further off than so many independent rows would be. Zero
    with fewer than MIN_WINDOWS windows of `min_rows` rows. The windows are part of the map that they are held
    against: with few of them this is a little too small.
    """
    excess: dict[str, list[float]] = {name: [] for name in MEASURES}
    for window in np.unique(windows):
        rows = windows == window
        if int(rows.sum()) < max(1, min_rows):
            continue
        counts = np.bincount(bin_index(scores[rows], list(edges)), minlength=len(bins)).tolist()
        said = estimate(bins, counts[: len(bins)], {})
        came = _realised(scores[rows], labels[rows], threshold)
        for name in MEASURES:
            estimated = getattr(said, name) if said else None
            if estimated is not None and came[name] is not None:
                excess[name].append((came[name] - estimated.value) ** 2 - estimated.error**2)
    return {
        name: round(math.sqrt(max(0.0, math.fsum(squares) / len(squares))), DECIMALS)
        for name, squares in excess.items()
        if len(squares) >= MIN_WINDOWS
    }


def _realised(
    scores: NDArray[np.float64], labels: NDArray[np.int8], threshold: float
) -> dict[str, Any]:
    p = np.clip(scores, LEAST_SCORE, 1 - LEAST_SCORE)
    both = 0 < int(labels.sum()) < len(labels)
    return {
        "log_loss": _mean(-np.where(labels, np.log(p), np.log1p(-p))),
        "accuracy": _mean(((scores >= threshold) == (labels == 1)).astype(np.float64)),
        "auc": rank_order(scores, labels) if both else None,
    }


def _estimated(
    name: str,
    weight: NDArray[np.float64],
    mean: NDArray[np.float64],
    variance: NDArray[np.float64],
    rows: NDArray[np.float64],
    n: int,
    usual: Mapping[str, float],
) -> Estimated:
    drawn = _dot(weight, variance) / n
    learned = _dot(weight**2, variance / np.maximum(rows, 1))
    error = math.sqrt(drawn + learned + usual.get(name, 0.0) ** 2)
    return Estimated(round(_dot(weight, mean), DECIMALS), round(error, DECIMALS))


def _auc(
    bins: Sequence[Mapping[str, Any]],
    positives: NDArray[np.float64],
    negatives: NDArray[np.float64],
    usual: Mapping[str, float],
) -> Estimated | None:
    """Expected pairs in order over expected pairs; standard error by Hanley & McNeil (1982)."""
    p, q = math.fsum(positives.tolist()), math.fsum(negatives.tolist())
    if p <= 0 or q <= 0:
        return None
    below = np.cumsum(negatives) - negatives
    auc = _dot(positives, below + _column(bins, "order") * negatives) / (p * q)
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (p - 1) * (q1 - auc**2) + (q - 1) * (q2 - auc**2)) / (p * q)
    error = math.sqrt(max(0.0, variance) + usual.get("auc", 0.0) ** 2)
    return Estimated(round(auc, DECIMALS), round(error, DECIMALS))


def rank_order(scores: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """Area under the ROC curve of scores (n,) and labels 0 or 1 (n,), by ranks.

    Ties count half (Mann & Whitney 1947); 0.5 where there is no pair.
    """
    positives = int(labels.sum())
    pairs = positives * (len(labels) - positives)
    if not pairs:
        return 0.5
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    wins = float(ranks[place][labels == 1].sum()) - positives * (positives + 1) / 2
    return round(wins / pairs, DECIMALS)


def _blend(
    bins: Sequence[Mapping[str, Any]], rate: NDArray[np.float64], name: str
) -> NDArray[np.float64]:
    """Mean of a row per bin; a bin without rows in the reference gets the mean of all rows."""
    negatives, positives = (_column(bins, each) for each in ("negatives", "positives"))
    mean = rate * _column(bins, f"{name}_1") + (1 - rate) * _column(bins, f"{name}_0")
    rows = negatives + positives
    whole = _dot(mean, rows) / max(1.0, float(rows.sum()))
    return np.where(rows > 0, mean, whole)


def _rate(positives: NDArray[np.float64], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of positives per bin; of all rows in a bin that the reference left empty."""
    whole = float(positives.sum()) / max(1.0, float(rows.sum()))
    return np.where(rows > 0, positives / np.maximum(rows, 1), whole)


def _column(bins: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    return np.array([entry[name] for entry in bins], dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    return round(math.fsum(values.tolist()) / len(values), DECIMALS) if len(values) else 0.0


def _dot(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return math.fsum((one * other).tolist())
