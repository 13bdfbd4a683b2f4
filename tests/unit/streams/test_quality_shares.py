"""Shares of missing and unseen values: exact limits, and nothing cried of what a reference foretells."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import betabinom

from streams.expectations import QualityPolicy
from streams.quality import TOLERATED_SHARE, share_checks, share_limit
from streams.task import DriftPolicy

POLICY, QUALITY = DriftPolicy(min_rows=50), QualityPolicy()


@pytest.mark.parametrize(
    ("usual", "m", "n", "alpha"),
    [(0, 2000, 50, 0.001), (60, 2000, 50, 0.001), (600, 20_000, 5000, 0.01), (5, 5, 50, 0.01)],
)
def test_the_limit_is_the_beta_binomial_quantile_and_what_is_tolerated(
    usual: int, m: int, n: int, alpha: float
) -> None:
    quantile = betabinom(n, usual + 0.5, m - usual + 0.5).ppf(1 - alpha)
    assert share_limit(usual, m, n, alpha) == pytest.approx(quantile / n + TOLERATED_SHARE)


def test_rare_missing_values_do_not_fail_small_windows_more_often_than_alpha() -> None:
    rng = np.random.default_rng(1)
    failed = 0
    for missing in rng.binomial(50, 0.03, 4000):
        reference = {"name": "x", "categories": [], "counts": [1940], "missing": 60}
        column = {"counts": [50 - missing], "missing": missing, "unseen": 0}
        failed += bool(share_checks(reference, column, 18, POLICY, QUALITY))
    assert failed <= 0.01 * 4000


def test_categories_seen_once_foretell_unseen_ones() -> None:
    known = [900, *[1] * 100]
    names = [f"c{i}" for i in range(len(known))]
    column = {"counts": [92, *[0] * 100, 8], "missing": 0, "unseen": 8}
    often = {"name": "x", "categories": names, "counts": [*known, 0], "missing": 0}
    assert share_checks(often, column, 1, POLICY, QUALITY) == []
    never = {**often, "counts": [900, *[2] * 100, 0]}
    (failed,) = share_checks(never, column, 1, POLICY, QUALITY)
    assert "x: unseen in 8.0% of 100 rows" in failed.message
