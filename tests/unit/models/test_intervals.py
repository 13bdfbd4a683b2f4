from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from models.intervals import LEAST_BLOCKS, Interval, block_interval, blocks_of

HOUR = 3_600_000


def test_of_rows_each_in_its_own_block_it_is_the_textbook_interval() -> None:
    values = np.random.default_rng(1).normal(0.3, 1, 200)
    found = block_interval(values, np.arange(200))
    assert found is not None
    low, high = stats.t.interval(0.95, 199, values.mean(), stats.sem(values))
    assert (found.low(0.95), found.high(0.95)) == pytest.approx((low, high), abs=1e-8)


def covered(correlation: float, by_rows: bool, trials: int = 400) -> float:
    """Share of histories in which the interval holds the true mean, 0; ten rows a day, twenty days."""
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(trials):
        day = np.repeat(rng.normal(0, np.sqrt(correlation), 20), 10)
        values = day + rng.normal(0, np.sqrt(1 - correlation), 200)
        blocks = np.arange(200) if by_rows else blocks_of(np.arange(200) * HOUR, 10 * HOUR)
        found = block_interval(values, blocks)
        assert found is not None
        hits += found.low(0.95) <= 0 <= found.high(0.95)
    return hits / trials


def test_it_covers_the_truth_as_often_as_it_says_where_days_hang_together() -> None:
    assert covered(0.5, by_rows=False) > 0.92
    assert covered(0.5, by_rows=True) < 0.75, "rows that count as independent promise too much"


@given(st.floats(-1, 1), st.floats(1e-6, 1), st.integers(2, 60), st.sampled_from([0.8, 0.9, 0.99]))
def test_another_confidence_follows_from_the_logged_bounds(
    mean: float, error: float, blocks: int, confidence: float
) -> None:
    found = Interval(mean, error, blocks)
    half = found.half(0.95)
    again = Interval.of_bounds(mean - half, mean + half, 0.95, blocks)
    assert again.half(confidence) == pytest.approx(found.half(confidence), rel=1e-6, abs=1e-9)


def test_a_short_time_is_cut_into_enough_blocks() -> None:
    times = np.arange(0, 24 * HOUR, HOUR)
    assert len(np.unique(blocks_of(times, 24 * HOUR))) == LEAST_BLOCKS
    weeks = blocks_of(np.arange(0, 20 * 24 * HOUR, HOUR), 24 * HOUR)
    assert np.bincount(weeks).tolist() == [24] * 20
    assert block_interval(np.ones(3), np.zeros(3, dtype=np.int64)) is None
