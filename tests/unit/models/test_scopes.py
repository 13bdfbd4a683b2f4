"""Which rows are learned from: fewer only where they are better beyond chance."""

from __future__ import annotations

import numpy as np
import pytest

from models.dataset import Dataset
from models.scopes import choose, shorter


def dataset(count: int) -> Dataset:
    times = np.arange(count, dtype=np.int64)
    ids = np.array([str(n) for n in range(count)], dtype=object)
    return Dataset(ids, times, np.zeros(count, np.int8), times + 1, {"x": times.astype(float)})


def test_times_that_leave_all_rows_or_too_few_are_left_out_and_most_rows_come_first() -> None:
    found = shorter(dataset(100), [90, 0, 50, -5, 30, 50, 200], least=20)
    assert [len(rows) for rows in found] == [70, 50]


def test_no_time_no_scope() -> None:
    assert shorter(dataset(100), [], least=1) == []


LABELS = np.arange(400) % 2
ALL, FEWER = dataset(1000), dataset(300)


def scores(right: float) -> np.ndarray:
    """Of each row, `right` for its label."""
    return np.where(LABELS == 1, right, 1 - right)


def test_fewer_rows_that_are_far_better_are_chosen() -> None:
    scope = choose(LABELS, [scores(0.6), scores(0.8), scores(0.7)], [ALL, FEWER], cut=5)
    assert scope.chosen is ALL and scope.rows == 1000 and scope.cut == 5
    assert scope.measured == {
        "all_rows_log_loss": pytest.approx(-np.log(0.6)),
        "shorter_log_loss": pytest.approx(-np.log(0.8)),
        "trained_since": 0.0,
    }


def test_a_gain_within_chance_is_none() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 0.2, len(LABELS))
    better = np.clip(scores(0.605) + noise, 0.01, 0.99)
    worse = np.clip(scores(0.6) + noise[::-1], 0.01, 0.99)
    scope = choose(LABELS, [worse, better], [FEWER], cut=0)
    assert scope.chosen is None and "trained_since" not in scope.measured
    assert scope.words.startswith("learned from all rows")


def test_equal_scores_choose_all_rows() -> None:
    assert choose(LABELS, [scores(0.7)] * 2, [FEWER], cut=0).chosen is None
