"""Performance from histograms, against the exact measures of the rows behind them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from streams.performance import (
    binned_auc,
    calibration_error,
    change_detected,
    log_loss_threshold,
)
from streams.task import DriftPolicy, Numeric, RetrainPolicy, Task

BINS = 50
TASK = Task(
    "toy",
    (Numeric("x"),),
    "late",
    drift=DriftPolicy(alpha=0.01),
    retrain=RetrainPolicy(max_log_loss_ratio=1.0),
)


def by_label(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    negatives, positives = (np.bincount(bins[labels == k], minlength=BINS) for k in (0, 1))
    return negatives, positives


@given(
    st.lists(st.tuples(st.integers(0, BINS - 1), st.booleans()), min_size=2, max_size=60).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auc_counts_ties_within_a_bin_half_as_scikit_learn_does(
    rows: list[tuple[int, bool]],
) -> None:
    bins = np.array([bin_ for bin_, _ in rows])
    labels = np.array([label for _, label in rows])
    found = binned_auc(*by_label((bins + 0.5) / BINS, labels.astype(int)))
    assert found == pytest.approx(roc_auc_score(labels, bins), abs=1e-9)


def test_auc_needs_both_classes() -> None:
    assert binned_auc(np.array([3, 4]), np.array([0, 0])) is None


def test_calibration_error_is_small_for_honest_scores_and_the_bias_for_biased_ones() -> None:
    rng = np.random.default_rng(1)
    truth = rng.uniform(0.1, 0.7, 200_000)
    labels = (rng.random(200_000) < truth).astype(int)
    assert calibration_error(*by_label(truth, labels)) < 0.01
    assert calibration_error(*by_label(truth + 0.2, labels)) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("n", [100, 1000])
def test_a_model_as_good_as_ever_passes_its_threshold_as_often_as_alpha_says(n: int) -> None:
    rng = np.random.default_rng(n)
    windows = 2000
    p = rng.beta(2, 5, (windows, n)).clip(0.01, 0.99)
    labels = rng.random((windows, n)) < p
    losses = -np.where(labels, np.log(p), np.log1p(-p)).mean(axis=1)
    many = rng.beta(2, 5, 1_000_000).clip(0.01, 0.99)
    expected = float(-(many * np.log(many) + (1 - many) * np.log1p(-many)).mean())
    too_high = 0
    for scores, loss in zip(p, losses, strict=True):
        counts = np.bincount(np.minimum((scores * BINS).astype(int), BINS - 1), minlength=BINS)
        too_high += loss > log_loss_threshold(expected, counts, TASK)
    assert 0.2 * TASK.drift.alpha <= too_high / windows <= 2 * TASK.drift.alpha


def test_page_hinkley_is_quiet_without_change_and_finds_a_lasting_one() -> None:
    rng = np.random.default_rng(1)
    calm = [list(rng.normal(0, 0.35, 100)) for _ in range(100)]
    false_alarms = sum(
        change_detected(pressures[:k]) for pressures in calm for k in range(5, 100, 5)
    )
    assert false_alarms <= 10
    delays = []
    for pressures in calm:
        changed = [*pressures[:40], *(value + 0.8 for value in pressures[40:60])]
        alarms = [k for k in range(41, 61) if change_detected(changed[:k])]
        delays.append(alarms[0] - 40 if alarms else 99)
    assert np.median(delays) <= 8 and np.mean(np.array(delays) < 99) >= 0.95


def test_page_hinkley_stays_quiet_when_the_loss_falls() -> None:
    assert not any(change_detected([0.5] * 20 + [-1.0] * k) for k in range(20))
