"""Distances of many histograms at once: after rounding, the reference's own numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kernels
from kernels import reference
from kernels.cpu import distances as scores
from kernels.reference import DECIMALS


@st.composite
def histograms(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs far apart, close together, equal in their shares, and empty."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows, width = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    most = draw(st.sampled_from([2, 30, 1000, 10**5, 10**9]))
    q = rng.integers(0, most, (rows, width))
    p = {
        "any": lambda: rng.integers(0, most, (rows, width)),
        "multiple": lambda: 3 * q,
        "close": lambda: q + rng.integers(0, 2, (rows, width)),
        "sparse": lambda: q * (rng.random((rows, width)) < 0.3),
        "empty": lambda: 0 * q,
    }[draw(st.sampled_from(["any", "multiple", "close", "sparse", "empty"]))]()
    return p, q, rng.integers(1, width + 1, rows)


@settings(max_examples=400, deadline=None)
@given(histograms())
def test_rounded_they_are_the_reference(pairs: tuple) -> None:
    p, q, sizes = pairs
    found = {
        reference.psi: kernels.psi_rows(*pairs),
        reference.ks: kernels.ks_rows(*pairs),
        reference.js: kernels.js_rows(*pairs),
    }
    for exact, values in found.items():
        for row, size in enumerate(sizes):
            want = round(exact(p[row, :size], q[row, :size]), DECIMALS)
            assert values[row] == want, exact.__name__


def test_no_result_strays_further_than_what_the_equality_rests_on() -> None:
    rng = np.random.default_rng(3)
    p, q = rng.integers(0, 10**6, (500, 30)), rng.integers(0, 10**3, (500, 30)) ** 3
    p[:, ::4] = 0
    raw = np.empty((3, 500))
    scores._rows(p, q, np.full(500, 30), raw)
    for row in range(500):
        assert abs(raw[0, row] - reference.psi(p[row], q[row])) < scores.PSI_TOLERANCE / 10
        assert raw[1, row] == reference.ks(p[row], q[row])
        gap = abs(raw[2, row] ** 2 - reference.js(p[row], q[row]) ** 2)
        assert gap < scores.JS_TOLERANCE / 5


def test_a_result_next_to_a_tie_is_settled_by_the_reference() -> None:
    """Raw numbers that lie on the wrong side of a tie, by less than the tolerance, come out right."""
    p, q = np.array([[10, 20, 30]] * 2), np.array([[30, 20, 11]] * 2)
    sizes = np.full(2, 3)
    exact = reference.psi(p[0], q[0])
    wrong = round(exact, DECIMALS) + 0.5e-9 + 1e-15
    raw = np.array([[wrong, exact], [0.0, 0.0], [0.5, 0.5]])
    assert scores.settled(raw, p, q, sizes).psi.tolist() == [round(exact, DECIMALS)] * 2


def test_shares_that_differ_in_the_tenth_digit_are_not_called_equal() -> None:
    p, q = np.array([[10**9, 10**9 + 1]]), np.array([[1, 1]])
    assert kernels.js_rows(p, q, np.array([2]))[0] == round(reference.js(p[0], q[0]), DECIMALS)


def test_histograms_that_do_not_fit_are_refused() -> None:
    p = np.ones((2, 3), np.int64)
    with pytest.raises(ValueError, match="shapes"):
        kernels.distances(p, p[:, :2], np.array([3, 3]))
    with pytest.raises(ValueError, match="sizes from 0 to 3 of 3 bins"):
        kernels.distances(p, p, np.array([0, 3]))
    with pytest.raises(ValueError, match="sizes from 3 to 4 of 3 bins"):
        kernels.distances(p, p, np.array([4, 3]))
