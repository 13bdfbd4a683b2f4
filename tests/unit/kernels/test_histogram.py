"""The compiled loops against the NumPy reference, value by value."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import kernels
from kernels.cpu.histogram import CELLS, MAX_EDGES, accumulate
from kernels.reference import bin_index, histogram

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, 1e308, -1e308]


def counted(x: np.ndarray, edges: np.ndarray, slot: np.ndarray, slots: int) -> tuple:
    counts, missing = np.zeros((slots, len(edges) + 1), np.int64), np.zeros(slots, np.int64)
    accumulate(x, edges, slot, counts, missing)
    return counts, missing


def expected(x: np.ndarray, edges: np.ndarray, slot: np.ndarray, slots: int) -> tuple:
    rows = [x[slot == row] for row in range(slots)]
    return (
        np.array([histogram(values, edges) for values in rows]).reshape(slots, -1),
        np.array([np.isnan(values).sum() for values in rows]),
    )


@st.composite
def batches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Columns short and long (the grid), edges of every size and spread, values on and beside edges."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    k = draw(st.sampled_from([0, 1, 2, 9, 19, 31, 32, 100, 255, 256, 700]))
    spread = draw(st.sampled_from([1.0, 1e-300, 1e300, 50.0]))
    power = draw(st.sampled_from([1, 9]))
    edges = np.unique(rng.normal(size=k) ** power * spread)
    n = draw(st.sampled_from([0, 1, 5, 300, CELLS, 2 * CELLS + 77]))
    x = rng.normal(size=n) ** power * spread * 1.2
    if k and n:
        on = rng.random(n) < 0.3
        x[on] = rng.choice(edges, on.sum())
        beside = rng.random(n) < 0.2
        x[beside] = np.nextafter(rng.choice(edges, beside.sum()), rng.choice([-np.inf, np.inf]))
    odd = rng.random(n) < 0.1
    x[odd] = rng.choice(SPECIAL, odd.sum())
    slots = draw(st.integers(1, 4))
    slot = rng.integers(-1, slots, n).astype(np.int32)
    if draw(st.booleans()):
        slot.sort()
    return x, edges, slot, slots


@settings(max_examples=300, deadline=None)
@given(batches())
def test_every_value_is_counted_where_the_reference_puts_it(batch: tuple) -> None:
    for mine, theirs in zip(counted(*batch), expected(*batch), strict=True):
        assert np.array_equal(mine, theirs)


def test_the_grid_is_right_at_every_edge_and_beside_it() -> None:
    """Edges a tenth of a cell from where cells meet: where rounding would show."""
    edges = np.linspace(-3, 3, 40)
    x = np.concatenate([edges, np.nextafter(edges, -np.inf), np.nextafter(edges, np.inf)])
    x = np.concatenate([np.repeat(x, 20), np.linspace(-3.1, 3.1, 100_003)])
    slot = np.zeros(len(x), np.int32)
    assert np.array_equal(counted(x, edges, slot, 1)[0][0], histogram(x, edges))


@settings(max_examples=50, deadline=None)
@given(batches(), st.integers(1, 2000))
def test_where_a_batch_is_cut_changes_no_count(batch: tuple, step: int) -> None:
    x, edges, slot, slots = batch
    counts, missing = np.zeros((slots, len(edges) + 1), np.int64), np.zeros(slots, np.int64)
    for at in range(0, len(x), step):
        part = slice(at, at + step)
        accumulate(x[part], edges, slot[part], counts, missing)
    for mine, theirs in zip((counts, missing), counted(*batch), strict=True):
        assert np.array_equal(mine, theirs)


def test_many_columns_in_one_call_and_counts_that_are_views() -> None:
    rng = np.random.default_rng(4)
    x, slot = rng.normal(size=(3, 3000)), rng.integers(-1, 2, 3000).astype(np.int32)
    edges = [np.linspace(-1, 1, 19), np.array([0.0]), np.array([])]
    counts, missing = kernels.histograms(x, edges, slot, 2)
    assert counts.shape == (2, 3, 20) and missing.shape == (2, 3)
    for place, e in enumerate(edges):
        want, _ = expected(x[place], e, slot, 2)
        assert np.array_equal(counts[:, place, : len(e) + 1], want)
        assert not counts[:, place, len(e) + 1 :].any()
    whole = np.zeros((2, 50), np.int64)
    accumulate(x[0], edges[0], slot, whole[:, 7:27], missing[:, 0])
    assert np.array_equal(whole[:, 7:27], counts[:, 0]) and not whole[:, 27:].any()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-5, 12), st.integers(-1, 2)), max_size=200),
    st.lists(st.integers(0, 4), max_size=9),
)
def test_categories_go_to_their_bins_the_unknown_to_the_last(rows: list, lut: list) -> None:
    counts, missing = np.zeros((3, 5), np.int64), np.zeros(3, np.int64)
    code, slot = np.array(rows, np.int32).reshape(-1, 2).T
    kernels.tally(code, np.array(lut, np.int32), slot, counts, missing)
    want = np.zeros_like(counts)
    for c, row in rows:
        if row >= 0 and c != -1:
            want[row, lut[c] if 0 <= c < len(lut) else 4] += 1
    assert np.array_equal(counts, want)
    assert missing.tolist() == [sum(r == (-1, row) for r in rows) for row in range(3)]


def test_what_does_not_fit_is_refused() -> None:
    x, slot = np.zeros(3), np.zeros(3, np.int32)
    counts, missing = np.zeros((1, 3), np.int64), np.zeros(1, np.int64)
    with pytest.raises(ValueError, match=r"\(1, 3\); edges and missing say \(1, 2\)"):
        accumulate(x, np.array([1.0]), slot, counts, missing)
    with pytest.raises(ValueError, match="3 values and 2 slots"):
        accumulate(x, np.array([1.0, 2.0]), slot[:2], counts, missing)
    with pytest.raises(IndexError, match="slot 1 of 1"):
        accumulate(x, np.array([1.0, 2.0]), slot + np.int32(1), counts, missing)
    with pytest.raises(IndexError, match="bin is none of 3"):
        kernels.tally(slot, np.array([3], np.int32), slot, counts, missing)
    many = np.arange(MAX_EDGES + 1.0)
    with pytest.raises(ValueError, match="edges; 65535 are the most"):
        accumulate(x, many, slot, np.zeros((1, len(many) + 1), np.int64), missing)
    with pytest.raises(ValueError, match="1 columns and the edges of 2"):
        kernels.histograms([x], [x, x], slot, 1)


def test_the_bin_rule_is_the_reference_s() -> None:
    edges = np.array([1.0, 2.0])
    counts, _ = counted(np.array([0.5, 1.0, 2.0, np.inf, -np.inf]), edges, np.zeros(5, np.int32), 1)
    assert counts[0].tolist() == [2, 1, 2]
    assert bin_index([0.5, 1.0, 2.0, np.inf, -np.inf], edges).tolist() == [0, 1, 2, 2, 0]


@settings(max_examples=60, deadline=None)
@example(196_356, 1)  # with a value beyond the reach
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_where_a_batch_ends_changes_no_bit_of_the_moments(seed: int, step: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.lognormal(3, 2, 700)
    x[rng.random(700) < 0.1] = rng.choice([np.nan, np.inf, -np.inf])
    slot = rng.integers(-1, 3, 700)
    whole, parts = kernels.no_ranges(3), kernels.no_ranges(3)
    sums, part_sums = np.zeros((3, 4), np.int64), np.zeros((3, 4), np.int64)
    rows, sizes = by_slot(slot, 3)
    kernels.add_moments(x[rows], sizes, 5.0, 100.0, sums, whole)
    for at in range(0, 700, step):
        rows, sizes = by_slot(slot[at : at + step][::-1], 3)
        part = x[at : at + step][::-1][rows]
        kernels.add_moments(part, sizes, 5.0, 100.0, part_sums, parts)
    assert whole.tobytes() == parts.tobytes()
    assert sums.tobytes() == part_sums.tobytes()
    for row in range(3):
        mine = x[(slot == row) & ~np.isnan(x)]
        finite = mine[np.isfinite(mine)].clip(5 - 2**11 * 100, 5 + 2**11 * 100)
        mean, variance = kernels.mean_and_variance(sums[row], 5.0, 100.0) or (None, None)
        assert mean == pytest.approx(finite.mean(), rel=1e-4, abs=1e-4)
        assert variance == pytest.approx(finite.var(), rel=1e-4)
        assert whole[row].tolist() == [mine.min(), mine.max()]
    with pytest.raises(ValueError, match="rows in 2 slots cannot be"):
        kernels.add_moments(part, sizes, 5.0, 100.0, sums[:2], whole[:2])


def by_slot(slot: np.ndarray, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows of all slots, one slot after the other, and how many each has."""
    rows = [np.flatnonzero(slot == at) for at in range(slots)]
    return np.concatenate(rows), np.array([len(each) for each in rows])


@pytest.mark.parametrize("zeros", [(0.0, -0.0), (-0.0, 0.0), (-0.0,)])
def test_whichever_zero_comes_first_the_range_has_the_same_bits(zeros: tuple) -> None:
    x = np.array([*zeros, np.nan, np.nan])
    sums, ranges = np.zeros((2, 4), np.int64), kernels.no_ranges(2)
    kernels.add_moments(x, np.array([len(zeros), 2]), 0.0, 1.0, sums, ranges)
    assert ranges[0].tobytes() == np.zeros(2).tobytes()
    assert ranges[1].tolist() == [np.inf, -np.inf]
    assert sums.tolist() == [[len(zeros), 0, 0, 0], [0, 0, 0, 0]]


@settings(max_examples=100, deadline=None)
@given(batches())
def test_one_pass_gives_the_histogram_and_the_moments_of_the_rows_asked_for(batch: tuple) -> None:
    x, edges, slot, slots = batch
    column = empty_column(x, edges, slots)
    rows, sizes = by_slot(slot, slots)
    kernels.accumulate([column, column], rows, sizes)  # twice the same
    counts, missing = expected(x, edges, slot, slots)
    sums, ranges = np.zeros((slots, 4), np.int64), kernels.no_ranges(slots)
    kernels.add_moments(x[rows], sizes, column.center, column.scale, sums, ranges)
    assert np.array_equal(column.counts, 2 * counts)
    assert np.array_equal(column.missing, 2 * missing)
    assert np.array_equal(column.sums, 2 * sums)
    assert column.ranges.tobytes() == ranges.tobytes()


def test_rows_that_are_not_there_are_refused() -> None:
    column = empty_column(np.zeros(3), np.array([1.0, 2.0]), 1)
    for rows in ([0, 3], [-1, 0]):
        with pytest.raises(IndexError, match="of 3"):
            kernels.accumulate([column], np.array(rows), np.array([2]))
    for sizes in ([1], [2, 0], [3, -1], []):
        with pytest.raises(ValueError, match="2 rows in 1 slots cannot be"):
            kernels.accumulate([column], np.array([0, 1]), np.array(sizes, np.int64))
    many = np.arange(MAX_EDGES + 1.0)
    with pytest.raises(ValueError, match="edges; 65535 are the most"):
        kernels.accumulate([empty_column(many, many, 1)], np.array([0]), np.array([1]))
    assert not column.counts.any()


def empty_column(x: np.ndarray, edges: np.ndarray, slots: int) -> kernels.Column:
    counts, missing = np.zeros((slots, len(edges) + 1), np.int64), np.zeros(slots, np.int64)
    moments = np.zeros((slots, 4), np.int64), kernels.no_ranges(slots)
    return kernels.Column(x, edges, 1.0, 50.0, counts, missing, *moments)
