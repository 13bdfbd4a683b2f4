"""The reference statistics against brute force and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from kernels.reference import bin_index, histogram, js, ks, psi
from streams.bins import MISSING, Bins

numbers = st.one_of(
    st.none(), st.integers(-5, 5).map(float), st.floats(allow_infinity=True, allow_nan=True)
)
edge_lists = st.lists(
    st.floats(-6, 6, allow_nan=False).map(lambda x: round(x, 1)), unique=True, max_size=12
).map(sorted)
pairs = st.integers(1, 12).flatmap(
    lambda size: st.tuples(
        st.lists(st.integers(0, 1000), min_size=size, max_size=size),
        st.lists(st.integers(0, 1000), min_size=size, max_size=size),
    )
)


@given(st.lists(numbers, max_size=60), edge_lists)
def test_every_value_falls_into_the_same_bin_as_in_the_stream(
    values: list[float | None], edges: list[float]
) -> None:
    bins = Bins("x", tuple(edges))
    x = np.array(values, dtype=np.float64)
    expected = [bins.index(value) for value in values]
    assert bin_index(x, edges).tolist() == expected
    assert histogram(x, edges).tolist() == [expected.count(i) for i in range(bins.size)]
    assert histogram(x, edges).sum() == len(values) - expected.count(MISSING)


def test_a_value_on_an_edge_belongs_to_the_bin_above() -> None:
    assert histogram([0.9, 1.0, 1.1], [1.0]).tolist() == [1, 2]


@given(pairs)
def test_distances_are_symmetric_bounded_and_zero_for_equal_shares(
    pair: tuple[list[int], list[int]],
) -> None:
    p, q = pair
    for distance, most in ((psi, math.inf), (ks, 1.0), (js, 1.0)):
        assert 0 <= distance(p, q) <= most
        assert distance(p, q) == pytest.approx(distance(q, p), abs=1e-12)
        assert distance(p, [3 * count for count in p]) == pytest.approx(0, abs=1e-7)


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_bins_does_not_change_the_last_bit_of_psi(
    pair: tuple[list[int], list[int]], random: object
) -> None:
    p, q = pair
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert psi([p[i] for i in order], [q[i] for i in order]) == psi(p, q)


def test_psi_is_the_textbook_sum_when_samples_are_large() -> None:
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    textbook = float(np.sum((p - q) * np.log(p / q)))
    assert psi(p * 1e9, q * 1e9) == pytest.approx(textbook, rel=1e-6)


def test_an_empty_bin_keeps_psi_finite_and_counts_half_a_row() -> None:
    # two bins, ten rows each side: w = 1/11, so shares 10/11 * p + 1/22
    p, q = [10, 0], [5, 5]
    ours = (21 / 22 - 0.5) * math.log((21 / 22) / 0.5) + (1 / 22 - 0.5) * math.log((1 / 22) / 0.5)
    assert psi(p, q) == pytest.approx(ours)


def test_a_rare_bin_that_a_small_window_misses_is_no_drift() -> None:
    assert psi([10, 10, 10, 10, 10, 0], [1000, 1000, 1000, 1000, 1000, 1]) < 1e-3


@given(pairs)
def test_js_agrees_with_scipy(pair: tuple[list[int], list[int]]) -> None:
    p, q = pair
    if sum(p) and sum(q):
        assert js(p, q) == pytest.approx(float(jensenshannon(p, q, base=2)), abs=1e-7)


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=50),
    st.lists(st.integers(0, 9), min_size=1, max_size=50),
)
def test_ks_over_bins_of_single_values_is_the_ks_of_the_samples(x: list[int], y: list[int]) -> None:
    gap = max(
        abs(sum(v <= at for v in x) / len(x) - sum(v <= at for v in y) / len(y)) for at in range(10)
    )
    edges = np.arange(1, 10)
    assert ks(histogram(x, edges), histogram(y, edges)) == pytest.approx(gap)


def test_an_empty_side_is_no_evidence() -> None:
    assert psi([0, 0], [1, 2]) == ks([0, 0], [1, 2]) == js([1, 2], [0, 0]) == 0


def test_histograms_over_different_bins_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        psi([1, 2], [1, 2, 3])
