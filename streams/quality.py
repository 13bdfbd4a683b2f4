"""Quality of one window's rows: volume, missing values and unseen categories, each against what is usual."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any

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
    """Lines for a column's missing and unseen shares, if they exceed the reference's (see `share_limit`)."""
    n = sum(column["counts"]) + column["missing"]
    m = sum(reference["counts"]) + reference["missing"]
    if n < policy.min_rows or m == 0:
        return []
    checks = [("missing", column["missing"], reference["missing"])]
    if reference["categories"]:
        checks.append(("unseen", column["unseen"], reference["counts"][-1]))
    failures = []
    for what, count, usual in checks:
        limit = share_limit(usual, m, n, policy.alpha / n_columns)
        if count / n > limit:
            failures.append(
                f"{reference['name']}: {what} in {count / n:.1%} of {n} rows,"
                f" at most {limit:.1%} expected (reference {usual / m:.1%})"
            )
    return failures


def share_limit(usual: int, m: int, n: int, alpha: float) -> float:
    """Largest share among `n` rows that is no failure when `usual` of `m` reference rows had it.

    q + z sqrt(q (1-q) (1/n + 1/m)) + TOLERATED_SHARE, with q = (usual + 1/2) / (m + 1) and z the normal
    quantile of 1 - alpha.
    """
    q = (usual + 0.5) / (m + 1)
    z = statistics.NormalDist().inv_cdf(1 - alpha)
    return q + z * math.sqrt(q * (1 - q) * (1 / n + 1 / m)) + TOLERATED_SHARE
