"""Quality of one window's rows: volume, missing values and unseen categories, each against what is usual."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import betaln

from streams.task import DriftPolicy

TOLERATED_SHARE = 0.02
"""Missing or unseen values may exceed the reference's share by this much and by what chance explains."""
SIGMAS = 3.0


def volume_failure(volume: int, usual: float | None) -> str | None:
    """A line if `volume` rows are less than half or more than twice the `usual`, by more than chance."""
    if usual is None:
        return None
    low, high = usual / 2, usual * 2
    if volume < low - SIGMAS * math.sqrt(low) or volume > high + SIGMAS * math.sqrt(high):
        return f"volume: {volume} rows, usually about {usual:.0f}"
    return None


def share_failures(
    reference: Mapping[str, Any], column: Mapping[str, Any], n_columns: int, policy: DriftPolicy
) -> list[str]:
    """Lines for a column's missing and unseen shares, if they exceed the reference's (see `share_limit`).

    What the reference says of categories that it has not seen: as many rows as it has categories seen
    once (Good & Turing 1953), besides those that it counted as others.
    """
    n = sum(column["counts"]) + column["missing"]
    m = sum(reference["counts"]) + reference["missing"]
    if n < policy.min_rows or m == 0:
        return []
    checks = [("missing", column["missing"], reference["missing"])]
    if reference["categories"]:
        *known, others = reference["counts"]
        checks.append(("unseen", column["unseen"], others + known.count(1)))
    failures = []
    for what, count, usual in checks:
        if count / n <= TOLERATED_SHARE:
            continue
        limit = share_limit(usual, m, n, policy.alpha / n_columns / len(checks))
        if count / n > limit:
            failures.append(
                f"{reference['name']}: {what} in {count / n:.1%} of {n} rows,"
                f" at most {limit:.1%} expected (reference {usual / m:.1%})"
            )
    return failures


def share_limit(usual: int, m: int, n: int, alpha: float) -> float:
    """Largest share among `n` rows that is no failure when `usual` of `m` reference rows had it.

    The (1 - alpha) quantile of the beta-binomial distribution that predicts n more rows (Jeffreys' prior),
    plus TOLERATED_SHARE. Exact where a normal quantile cries too often: few rows, rare values.
    """
    a, b = usual + 0.5, m - usual + 0.5
    k = np.arange(n + 1)
    log_mass = betaln(k + a, n - k + b) - betaln(a, b) - betaln(k + 1, n - k + 1) - math.log(n + 1)
    at_least = np.cumsum(np.exp(log_mass)[::-1])[::-1]
    quantile = int(np.argmax(at_least <= alpha)) - 1 if at_least[-1] <= alpha else n
    return quantile / n + TOLERATED_SHARE
