"""The drift verdict, measured: how often it is wrong without drift, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from streams.bins import Bins
from streams.drift import score_drift
from streams.reference import build_reference
from streams.task import DriftPolicy

STREAMS = 1000
CHANCE_ALONE = DriftPolicy(min_psi=0.0, min_rows=50, alpha=0.01)
POLICY = DriftPolicy(min_rows=50)
DECILES = np.full(10, 0.1)
ZIPF = 1 / np.arange(1, 17)
SHAPES = {
    "deciles": [*DECILES, 0.0],
    "deciles, one in a thousand missing": [*DECILES * 0.999, 0.001],
    "16 categories": [*ZIPF / ZIPF.sum(), 0.0],
    "200 rare categories": [*np.full(200, 1 / 200), 0.0],
}


def column(counts: NDArray[np.int64]) -> dict[str, object]:
    """A reference or a window; the last count is the missing."""
    return {"counts": counts[:-1].tolist(), "missing": int(counts[-1]), "swing": 0.0}


@pytest.mark.parametrize("n", [50, 100, 500, 1000, 5000])
@pytest.mark.parametrize("shape", SHAPES)
def test_without_drift_a_window_raises_an_alarm_no_more_often_than_alpha(
    shape: str, n: int
) -> None:
    rng = np.random.default_rng(n)
    shares = SHAPES[shape]
    alarms = sum(
        score_drift(
            column(rng.multinomial(20_000, shares)),
            column(rng.multinomial(n, shares)),
            1,
            CHANCE_ALONE,
        ).drifted
        for _ in range(STREAMS)
    )
    assert alarms <= binom.ppf(0.999, STREAMS, CHANCE_ALONE.alpha)


@pytest.mark.parametrize("n", [50, 500, 5000])
def test_alpha_holds_for_all_columns_of_a_window_together(n: int) -> None:
    rng = np.random.default_rng(n)
    shares = SHAPES["deciles"]
    alarms = sum(
        any(
            score_drift(
                column(rng.multinomial(20_000, shares)),
                column(rng.multinomial(n, shares)),
                18,
                CHANCE_ALONE,
            ).drifted
            for _ in range(18)
        )
        for _ in range(STREAMS // 2)
    )
    assert alarms <= binom.ppf(0.999, STREAMS // 2, CHANCE_ALONE.alpha)


def detection(n: int, shift: float, draws: int = 200) -> float:
    """Share of windows of n normal values, shifted by `shift` standard deviations, that count as drift."""
    rng = np.random.default_rng(7)
    values = rng.normal(size=20_000)
    reference = build_reference({"x": values}, {"x": "double"}, values, [0] * 20_000, POLICY)[0]
    found = 0
    for _ in range(draws):
        counts = np.bincount(
            np.searchsorted(reference["edges"], rng.normal(shift, 1, n), side="right"), minlength=10
        )
        found += score_drift(reference, column(np.append(counts, 0)), 18, POLICY).drifted
    return found / draws


@pytest.mark.parametrize(("n", "shift"), [(100, 1.0), (300, 0.5), (1000, 0.5), (5000, 0.5)])
def test_a_planted_shift_is_found(n: int, shift: float) -> None:
    assert detection(n, shift) >= 0.8


def test_a_shift_too_small_to_matter_is_not_called_drift_however_many_rows_prove_it() -> None:
    assert detection(50_000, 0.1, draws=20) == 0


def test_one_outlier_of_a_million_changes_psi_hardly_at_all() -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=10_000)
    window = rng.normal(0.5, 1, 1000)
    with_outlier = np.append(window, 1e6)
    clean = build_reference({"x": values}, {"x": "double"}, values, [0] * 10_000, POLICY)[0]
    spoilt = np.append(values, 1e6)
    dirty = build_reference({"x": spoilt}, {"x": "double"}, spoilt, [0] * 10_001, POLICY)[0]

    def measured(reference: dict, x: NDArray[np.float64]) -> float:
        bins = Bins.from_reference(reference)
        counts = np.bincount([bins.index(value) for value in x], minlength=bins.size)
        return score_drift(reference, column(np.append(counts, 0)), 1, POLICY).psi

    before = measured(clean, window)
    assert before > 0.2
    assert measured(clean, with_outlier) == pytest.approx(before, rel=0.02)
    assert measured(dirty, window) == pytest.approx(before, rel=0.02)


def test_a_flood_of_missing_values_is_drift() -> None:
    reference = column(np.array([1000] * 10 + [0]))
    flooded = column(np.array([40] * 10 + [100]))
    assert score_drift(reference, flooded, 18, POLICY).drifted


def test_a_window_of_too_few_rows_never_counts_as_drifted() -> None:
    reference = column(np.array([1000] * 10 + [0]))
    few = column(np.array([49] + [0] * 10))
    drift = score_drift(reference, few, 1, POLICY)
    assert drift.psi > drift.threshold and not drift.drifted
