"""Leakage: does a training set hold what was not known when its questions were asked? (pure)

None of them proves a leak; each finds what an honest feature, recipe or split hardly ever does. Every
threshold knows the sample: it lies so many standard errors beyond what is tolerated that an honest feature
just at the ceiling is refused once in a hundred trainings (and one well below it practically never), and
shuffled labels beat chance three times in a million. What they cannot see: a leak that is weaker than an
honest feature may be, such as a label that is wrong in one row of five.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas
from numpy.typing import NDArray

from models.dataset import Dataset
from models.gates import auc
from models.sampling import reservoir
from streams.expectations import QualityPolicy
from streams.quality import Check

Score = Callable[[Dataset], NDArray[np.float64]]
Fit = Callable[[Dataset], Score]
"""Trains as the task does: rows -> what scores other rows."""

FEATURE_ROWS = 10_000
"""Rows that the tests of single features look at, at most (a reservoir)."""
FIT_ROWS = 2_000
"""Rows that the test which trains by the recipe looks at, at most."""
MIN_OF_A_CLASS = 10
"""Fewer rows of a label on a side tell nothing: the test is left out."""
BINS = 64
"""Of a number, by its quantiles, at most; what is missing has a bin of its own."""
ROWS_OF_A_BIN = 20
FEW_BINS = 16
"""Where all features are looked at together: less chance in each."""
SMOOTHING = 5.0
ALPHA = 0.01
"""Chance that an honest feature whose true AUC is just the ceiling (or spike) is refused."""
SHUFFLED_SIGMAS = 4.5
SPIKE = 0.2
"""A feature whose AUC rises by this much from the version before, and...."""
SPIKE_FROM = 0.85
"""... reaches this, has changed its nature."""
REVERSED_MARGIN = 0.1
"""So much better (AUC) may the past be told from the future than the other way round: drift does that."""
DECIMALS = 6


def leakage_checks(
    rows: Dataset, fit: Fit, policy: QualityPolicy, seed: int, before: Mapping[str, float]
) -> list[Check]:
    """All tests. `before`: feature -> its AUC in the training set of the version before, if known."""
    rows = rows.where(reservoir(rows.ids, FEATURE_ROWS, seed))
    few = rows.where(reservoir(rows.ids, FIT_ROWS, seed))
    return [
        *single_feature_checks(rows, policy, before),
        *shuffled_labels_check(few, fit, policy, seed),
        *time_reversed_check(rows, policy),
    ]


def single_feature_checks(
    sample: Dataset, policy: QualityPolicy, before: Mapping[str, float]
) -> list[Check]:
    """How well each feature alone separates the labels, against the ceiling and against the version before.

    A feature is cut into quantiles (a category into its values, the missing apart); each half of the rows
    (alternate in time) is scored by the smoothed label share of the bins in the other half, so a column of
    many values does not look good by chance; the AUC is the mean of the two halves. This sees a leak of any
    shape: a U, a category, a value that is missing only where the label is 1. A number that is larger (or
    smaller) for one label is also taken as it is, by its ranks, and the better of the two AUCs counts.
    """
    halves = np.arange(len(sample)) % 2 == 0
    if not all(_judgeable(sample.labels[half]) for half in (halves, ~halves)):
        return []
    z = statistics.NormalDist().inv_cdf(1 - ALPHA)
    checks = []
    for name, values in sample.columns.items():
        value = _crossed_auc(_binned(values), sample.labels, halves)
        if values.dtype != object:
            value = max(value, _rank_auc(values, sample.labels))
        error = standard_error(value, sample.labels)
        limit = policy.max_feature_auc + z * standard_error(policy.max_feature_auc, sample.labels)
        limit = min(
            limit, 1 - 1 / len(sample)
        )  # a perfect feature fails however few rows there are
        text = f"{name} alone tells the label: AUC {value:.3f} > {limit:.3f} on {len(sample)} rows"
        severity = policy.severity("single_feature")
        checks.append(_check("single_feature", name, value, limit, severity, text))
        if name in before:
            known = before[name]
            limit = max(SPIKE_FROM, known + SPIKE + z * math.sqrt(2) * error)
            text = (
                f"{name} tells the label as never before: AUC {value:.3f} > {limit:.3f},"
                f" {known:.3f} for the version before"
            )
            severity = policy.severity("importance_spike")
            checks.append(_check("importance_spike", name, value, limit, severity, text))
    return checks


def shuffled_labels_check(rows: Dataset, fit: Fit, policy: QualityPolicy, seed: int) -> list[Check]:
    """A model that learned shuffled labels must not beat chance on later rows with shuffled labels.

    If it does, a row's own label reaches its score through the recipe, an encoder or the split. Under chance
    the AUC is 1/2 with variance (n1 + n0 + 1) / (12 n1 n0), without ties (Mann and Whitney 1947); ties make
    it smaller.
    """
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = Dataset(rows.ids, rows.times, rows.labels[order], rows.label_times, rows.columns)
    early, late = _halves(shuffled)
    if not (_judgeable(early.labels) and _judgeable(late.labels)):
        return []
    value = round(auc(late.labels, fit(early)(late)), DECIMALS)
    positives, negatives = late.positives, len(late) - late.positives
    error = math.sqrt((len(late) + 1) / (12 * positives * negatives))
    limit = 0.5 + SHUFFLED_SIGMAS * error
    text = f"a model of shuffled labels beats chance: AUC {value:.3f} > {limit:.3f} on {len(late)} rows"
    severity = policy.severity("shuffled_labels")
    return [_check("shuffled_labels", None, value, limit, severity, text)]


def time_reversed_check(rows: Dataset, policy: QualityPolicy) -> list[Check]:
    """Telling the earlier half from the later one must not be much easier than the other way round.

    It is where old rows were filled in with what became known after them, and new rows not yet. Where nothing
    changes, both directions are equally hard; where the rules change, one of them may be easier, too: so by
    itself it alerts, and stops no training. The model is naive Bayes over a few bins of each
    feature: it costs next to nothing.
    """
    early = np.arange(len(rows)) < len(rows) // 2
    if not (_judgeable(rows.labels[early]) and _judgeable(rows.labels[~early])):
        return []
    binned = [_binned(values, FEW_BINS) for values in rows.columns.values()]
    forward = auc(rows.labels[~early], _ranks(_naive_bayes(binned, rows.labels, early)[~early]))
    backward = auc(rows.labels[early], _ranks(_naive_bayes(binned, rows.labels, ~early)[early]))
    error = math.hypot(
        standard_error(forward, rows.labels[~early]), standard_error(backward, rows.labels[early])
    )
    z = statistics.NormalDist().inv_cdf(1 - ALPHA)
    value, limit = round(backward - forward, DECIMALS), REVERSED_MARGIN + z * error
    text = (
        f"the past is told from the future more easily than the future from the past:"
        f" AUC {backward:.3f} against {forward:.3f}"
    )
    severity = policy.severity("time_reversed")
    return [_check("time_reversed", None, value, limit, severity, text)]


def standard_error(value: float, labels: NDArray[Any]) -> float:
    """Of an AUC: J. A. Hanley and B. J. McNeil, Radiology 143(1), 1982."""
    positives = int(labels.sum())
    negatives = len(labels) - positives
    q1, q2 = value / (2 - value), 2 * value**2 / (1 + value)
    square = value**2
    variance = (
        value * (1 - value) + (positives - 1) * (q1 - square) + (negatives - 1) * (q2 - square)
    )
    return math.sqrt(max(variance, 0.0) / (positives * negatives))


def _check(
    name: str, column: str | None, value: float, limit: float, severity: str, text: str
) -> Check:
    limit = round(limit, DECIMALS)
    return Check(name, column, value, limit, value <= limit, severity, text)


def _judgeable(labels: NDArray[Any]) -> bool:
    positives = int(labels.sum())
    return MIN_OF_A_CLASS <= positives <= len(labels) - MIN_OF_A_CLASS


def _halves(rows: Dataset) -> tuple[Dataset, Dataset]:
    first = np.arange(len(rows)) < len(rows) // 2
    return rows.where(first), rows.where(~first)


def _binned(values: NDArray[Any], most: int = BINS) -> NDArray[np.int64]:
    """A small whole number per value, the missing apart."""
    if values.dtype == object:
        codes, _ = pandas.factorize(values, use_na_sentinel=False)
        return np.asarray(codes, np.int64)
    known = ~np.isnan(values)
    bins = np.zeros(len(values), np.int64)
    if known.any():
        count = min(max(len(values) // ROWS_OF_A_BIN, 2), most)
        edges = np.unique(np.quantile(values[known], np.linspace(0, 1, count + 1)[1:-1]))
        bins[known] = 1 + np.searchsorted(edges, values[known], side="left")
    return bins


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The order of the values as numbers between 0 and 1, where `auc` wants them."""
    distinct, place = np.unique(values, return_inverse=True)
    return np.asarray((place + 1) / (len(distinct) + 1), np.float64)


def _rank_auc(values: NDArray[np.float64], labels: NDArray[Any]) -> float:
    """The AUC of a number by itself, in its better direction; the missing stand in the middle."""
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.5
    found = auc(labels, _ranks(np.where(np.isnan(values), np.median(known), values)))
    return round(max(found, 1 - found), DECIMALS)


def _naive_bayes(
    binned: list[NDArray[np.int64]], labels: NDArray[Any], learned: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The log-odds of every row by a model of the rows `learned`."""
    odds = np.zeros(len(labels))
    truth = labels[learned].astype(np.float64)
    for bins in binned:
        total = int(bins.max(initial=0)) + 1
        ones = np.bincount(bins[learned], truth, minlength=total)
        zeros = np.bincount(bins[learned], 1 - truth, minlength=total)
        share = SMOOTHING * truth.mean(), SMOOTHING * (1 - truth.mean())
        odds += np.log((ones + share[0]) / (zeros + share[1]))[bins]
    return odds


def _crossed_auc(bins: NDArray[np.int64], labels: NDArray[Any], halves: NDArray[np.bool_]) -> float:
    total, found = int(bins.max(initial=0)) + 1, 0.0
    for half in (halves, ~halves):
        other = ~half
        counts = np.bincount(bins[other], minlength=total)
        positives = np.bincount(bins[other], labels[other], minlength=total)
        prior = float(labels[other].mean())
        shares = (positives + SMOOTHING * prior) / (counts + SMOOTHING)
        found += auc(labels[half], shares[bins[half]]) / 2
    return round(found, DECIMALS)
