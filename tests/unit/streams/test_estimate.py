"""CBPE against what can be worked out by hand, and against the truth where scores mean what they say."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from kernels.reference import bin_index
from streams.estimate import calibration_map, estimate, usual_errors

EDGES = [0.1, 0.2, 0.35, 0.5, 0.7, 0.9]


def drawn(n: int, seed: int, a: float = 2.0, b: float = 2.0) -> tuple[Any, Any]:
    """Scores, and labels that come as often as the scores say."""
    rng = np.random.default_rng(seed)
    scores = rng.beta(a, b, n)
    return scores, (rng.random(n) < scores).astype(np.int8)


def counts(scores: Any) -> list[int]:
    return np.bincount(bin_index(scores, EDGES), minlength=len(EDGES) + 1).tolist()


@settings(max_examples=30)
@given(st.integers(0, 10_000), st.integers(20, 400))
def test_of_the_reference_itself_it_is_exact(seed: int, n: int) -> None:
    scores, labels = drawn(n, seed)
    bins = calibration_map(scores, labels, EDGES, 0.5)
    found = estimate(bins, counts(scores), {})
    assert found is not None
    assert found.positive_rate == pytest.approx(labels.mean(), abs=1e-6)
    if 0 < labels.sum() < n:
        assert found.log_loss.value == pytest.approx(metrics.log_loss(labels, scores), abs=1e-6)
        assert found.auc is not None
        assert found.auc.value == pytest.approx(metrics.roc_auc_score(labels, scores), abs=1e-6)
    right = metrics.accuracy_score(labels, scores >= 0.5)
    assert found.accuracy.value == pytest.approx(right, abs=1e-6)


def test_by_hand() -> None:
    """Two bins: 1 of 4 rows positive at score 0.25, 3 of 4 at 0.75."""
    scores = np.array([0.25] * 4 + [0.75] * 4)
    labels = np.array([1, 0, 0, 0, 1, 1, 1, 0], dtype=np.int8)
    bins = calibration_map(scores, labels, [0.5], 0.5)
    found = estimate(bins, [10, 30], {})
    assert found is not None and found.auc is not None
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert found.log_loss.value == pytest.approx(entropy, abs=1e-6)
    assert found.accuracy.value == pytest.approx(0.75)
    assert found.positive_rate == pytest.approx(0.625)  # (10 / 4 + 30 * 3 / 4) / 40
    # 25 positives (2.5 + 22.5), 15 negatives (7.5 + 7.5); half of the pairs within a bin
    pairs = 22.5 * 7.5 + 0.5 * (2.5 * 7.5 + 22.5 * 7.5)
    assert found.auc.value == pytest.approx(pairs / (25 * 15), abs=1e-6)
    gap = math.log(3)  # between the two losses that a row can have
    spread = 0.25 * 0.75 * gap**2
    drawn_, learned = spread / 40, spread * (0.25**2 + 0.75**2) / 4
    assert found.log_loss.error == pytest.approx(math.sqrt(drawn_ + learned), rel=1e-4)
    wider = estimate(bins, [10, 30], {"log_loss": 0.1})
    assert wider is not None
    expected = math.sqrt(drawn_ + learned + 0.01)
    assert wider.log_loss.error == pytest.approx(expected, rel=1e-4)


def test_when_only_the_scores_shift_the_truth_lies_in_the_band_as_often_as_stated() -> None:
    bins = calibration_map(*drawn(50_000, 1), EDGES, 0.5)
    inside = {"log_loss": 0, "accuracy": 0, "auc": 0}
    for seed in range(200):
        scores, labels = drawn(500, 100 + seed, a=1.5, b=3.0)
        found = estimate(bins, counts(scores), {})
        assert found is not None and found.auc is not None
        inside["log_loss"] += _in(found.log_loss, metrics.log_loss(labels, scores))
        inside["accuracy"] += _in(found.accuracy, ((scores >= 0.5) == labels).mean())
        inside["auc"] += _in(found.auc, metrics.roc_auc_score(labels, scores))
    assert all(180 <= hits <= 200 for hits in inside.values()), inside


def _in(one: Any, truth: float) -> bool:
    return bool(one.low <= truth <= one.high)


def test_days_that_hang_together_widen_the_band() -> None:
    rng = np.random.default_rng(3)
    days = np.repeat(np.arange(30), 300)
    scores = rng.beta(2, 2, len(days))
    mood = rng.normal(0, 0.15, 30)[days]
    labels = (rng.random(len(days)) < np.clip(scores + mood, 0, 1)).astype(np.int8)
    bins = calibration_map(scores, labels, EDGES, 0.5)
    moody = usual_errors(bins, scores, labels, EDGES, 0.5, days, 100)
    calm_labels = (rng.random(len(days)) < scores).astype(np.int8)
    calm_bins = calibration_map(scores, calm_labels, EDGES, 0.5)
    calm = usual_errors(calm_bins, scores, calm_labels, EDGES, 0.5, days, 100)
    assert moody["log_loss"] > max(0.01, 3 * calm["log_loss"])
    assert usual_errors(bins, scores, labels, EDGES, 0.5, days, 1_000) == {}


def test_nothing_to_estimate_from() -> None:
    bins = calibration_map(*drawn(100, 1), EDGES, 0.5)
    assert estimate(bins, [0] * 7, {}) is None
    assert estimate(bins, [1, 2], {}) is None, "other bins than those of the map"
    zeros = np.zeros(10, dtype=np.int8)
    none = estimate(calibration_map(np.full(10, 0.1), zeros, [0.5], 0.5), [3, 4], {})
    assert none is not None and none.auc is None and none.positive_rate == 0
