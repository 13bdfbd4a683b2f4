"""References: bins from the training data alone, and a swing that knows how restless the data are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.bins import Bins
from streams.canonical import fingerprint
from streams.drift import score_drift
from streams.reference import MAX_CATEGORIES, build_reference, psi_threshold
from streams.task import DriftPolicy

POLICY = DriftPolicy(min_rows=10)


def one(values: list[object], kind: str = "double", windows: list[int] | None = None) -> dict:
    scores = [0.5] * len(values)
    return build_reference(
        {"x": values},
        {"x": kind},
        scores,
        windows or [0] * len(values),
        POLICY,  # type: ignore[dict-item]
    )[0]


def test_numeric_bins_hold_equal_shares_of_the_reference() -> None:
    column = one(list(np.random.default_rng(1).normal(size=5000)))
    assert len(column["edges"]) == 9
    assert max(column["counts"]) - min(column["counts"]) <= 2


@given(
    st.lists(
        st.one_of(st.none(), st.integers(0, 3), st.floats(-1e6, 1e6), st.just(float("nan"))),
        max_size=80,
    )
)
def test_the_counts_are_what_the_stream_would_count_with_these_bins(values: list) -> None:
    column = one(values)
    bins = Bins.from_reference(column)
    found = [bins.index(value) for value in values]
    assert column["counts"] == [found.count(i) for i in range(bins.size)]
    assert column["missing"] == found.count(-1)
    assert bins.size <= POLICY.bins + (len(set(column["edges"])) == 2)


@given(st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), max_size=60))
def test_the_categories_are_counted_as_the_stream_would(values: list) -> None:
    column = one(values, "string")
    bins = Bins.from_reference(column)
    found = [bins.index(value) for value in values]
    assert column["counts"] == [found.count(i) for i in range(bins.size)]
    assert column["missing"] == values.count(None)


def test_a_constant_has_its_own_bin_so_that_leaving_it_shows() -> None:
    column = one([5.0] * 1000)
    assert column["counts"] == [0, 1000, 0]
    for left in ([200, 0, 0], [0, 0, 200]):
        moved = {"counts": left, "missing": 0}
        assert score_drift(column, moved, 1, POLICY).drifted


def test_the_constant_s_bin_is_wide_enough_for_single_precision() -> None:
    for constant in (0.1, 1e6 / 3, -7.7, 0.0):
        edges = np.array(one([constant] * 10)["edges"], dtype=np.float32)
        assert edges[0] < edges[1]


def test_categories_go_by_frequency_and_ties_by_name() -> None:
    column = one(["b", "c", "a", "c", "b", None, "d"], "string")
    assert column["categories"] == ["b", "c", "a", "d"]
    assert column["counts"] == [2, 2, 1, 1, 0] and column["missing"] == 1


def test_rare_categories_share_the_last_bin_with_the_unknown() -> None:
    values = [f"c{i:03d}" for i in range(300)] + [f"c{i:03d}" for i in range(MAX_CATEGORIES)]
    column = one(values, "string")
    assert len(column["categories"]) == MAX_CATEGORIES
    assert column["counts"][-1] == 100


def test_a_column_without_values_has_one_empty_bin() -> None:
    assert one([None, float("nan")])["counts"] == [0]
    assert one([None, None], "string")["counts"] == [0]


def test_columns_come_in_order_and_the_score_last() -> None:
    columns = {"b": [1.0, 2.0], "a": ["x", "y"]}
    built = build_reference(columns, {"b": "double", "a": "string"}, [0.1, 0.9], [0, 0], POLICY)
    assert [column["name"] for column in built] == ["b", "a", "score"]


def test_a_column_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="column x: 1 values for 2 rows"):
        build_reference({"x": [1.0]}, {"x": "double"}, [0.1, 0.2], [0, 0], POLICY)


def test_the_order_of_the_rows_does_not_matter() -> None:
    rng = np.random.default_rng(3)
    x, windows = rng.normal(size=600), np.repeat(np.arange(6), 100)
    order = rng.permutation(600)
    assert fingerprint(one(list(x), windows=list(windows))) == fingerprint(
        one(list(x[order]), windows=list(windows[order]))
    )


def restless(days: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Weather: each day has its own level, 200 rows around it."""
    rng = np.random.default_rng(seed)
    level = rng.normal(0, 1, days)
    return np.repeat(level, 200) + rng.normal(0, 0.5, days * 200), np.repeat(np.arange(days), 200)


def test_swing_is_zero_without_enough_windows_and_small_for_data_that_do_not_hang_together() -> (
    None
):
    x, windows = restless(4, 1)
    assert one(list(x), windows=list(windows))["swing"] == 0
    x, windows = restless(30, 1)
    shuffled = np.random.default_rng(2).permutation(x)
    assert 0 < one(list(shuffled), windows=list(windows))["swing"] < 0.15
    assert one(list(x), windows=list(windows))["swing"] > 1


def test_swing_keeps_restless_days_from_being_called_drift() -> None:
    x, windows = restless(60, 1)
    column = one(list(x), windows=list(windows))
    calm = {**column, "swing": 0.0, "swing_windows": 0}
    bins = Bins.from_reference(column)
    days, _ = restless(200, 2)
    alarms, calm_alarms = 0, 0
    for day in days.reshape(200, 200):
        counts = np.bincount([bins.index(value) for value in day], minlength=bins.size).tolist()
        window = {"counts": counts, "missing": 0}
        alarms += score_drift(column, window, 1, POLICY).drifted
        calm_alarms += score_drift(calm, window, 1, POLICY).drifted
    assert alarms <= 10 < 190 <= calm_alarms


def test_windows_that_are_like_their_neighbours_say_less_about_the_next() -> None:
    rng, count, rows = np.random.default_rng(5), 40, 200
    apart = rng.normal(size=count)
    levels = [apart[0]]
    for fresh in apart[1:]:
        levels.append(0.8 * levels[-1] + 0.6 * fresh)
    windows = np.repeat(np.arange(count), rows)
    x = rng.normal(size=count * rows)

    def worth(level_of: np.ndarray) -> int:
        return one(list(x + level_of[windows]), windows=list(windows))["swing_windows"]

    assert worth(apart) >= 36  # r is an estimate: hardly ever exactly 0
    assert worth(np.array(levels)) < 30


def test_one_odd_window_does_not_blind_a_calm_column() -> None:
    rng, count, rows = np.random.default_rng(6), 20, 200
    x = rng.normal(size=(count, rows))
    x[7] += 1.0  # a holiday: its deviation and skewness alone would allow a PSI of 9
    column = one(list(x.ravel()), windows=list(np.repeat(np.arange(count), rows)))
    bins = Bins.from_reference(column)

    def drifted(level: float) -> bool:
        shifted = rng.normal(size=rows) + level
        counts = np.bincount([bins.index(v) for v in shifted], minlength=bins.size).tolist()
        return score_drift(column, {"counts": counts, "missing": 0}, 20, POLICY).drifted

    assert drifted(2.0)
    assert not drifted(0.0)


def test_the_threshold_is_the_largest_of_its_three_parts() -> None:
    column = {"counts": [100] * 10, "missing": 0, "swing": 0.0}
    policy = DriftPolicy(alpha=0.01, min_psi=0.1)
    # chi2.ppf(0.99, 9) = 21.666: the table's value
    assert psi_threshold(column, 50, 1000, 1, policy) == pytest.approx(21.666 * 0.021, rel=1e-4)
    assert psi_threshold(column, 50_000, 100_000, 1, policy) == 0.1
    assert psi_threshold({**column, "swing": 0.7}, 50, 1000, 1, policy) == 0.7
    assert psi_threshold(column, 50, 1000, 18, policy) > psi_threshold(column, 50, 1000, 1, policy)
