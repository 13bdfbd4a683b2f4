"""Quality of one window's rows: each check against what is usual, or what the Task expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaln

from streams.expectations import QUARANTINE, Expect, QualityPolicy
from streams.task import DriftPolicy

TOLERATED_SHARE = 0.02
"""Missing or unseen values may exceed the reference's share by this much and by what chance explains."""
SIGMAS = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check and its outcome; `message` says in words what failed, with the numbers."""

    name: str
    column: str | None
    value: float
    threshold: float
    passed: bool
    severity: str
    message: str = ""

    def record(self) -> dict[str, Any]:
        """The QualityCheck of a QualityChecked event."""
        return {
            "name": self.name,
            "column": self.column,
            "value": self.value,
            "threshold": self.threshold,
            "passed": self.passed,
            "severity": self.severity,
        }


def verdict(checks: Sequence[Check]) -> dict[str, Any]:
    """The fields `passed`, `failures`, `checks` and `quarantined` of a QualityChecked event."""
    failed = [check for check in checks if not check.passed]
    return {
        "passed": not failed,
        "failures": [check.message for check in failed],
        "checks": [check.record() for check in checks],
        "quarantined": any(check.severity == QUARANTINE for check in failed),
    }


def volume_checks(
    volume: int, usual: float | None, gap_hours: float | None, policy: QualityPolicy
) -> list[Check]:
    """Rows against the `usual` number and the least; hours without rows before the window.

    What is not known or not asked is not checked. The usual number may be missed by the policy's ratio and
    by SIGMAS standard deviations of a Poisson count.
    """
    checks = []
    if usual is not None:
        low, high = usual / policy.max_volume_ratio, usual * policy.max_volume_ratio
        low, high = low - SIGMAS * math.sqrt(low), high + SIGMAS * math.sqrt(high)
        text = f"volume: {volume} rows, usually about {usual:.0f}"
        bound = low if volume < usual else high
        severity = policy.severity("volume")
        checks.append(Check("volume", None, volume, bound, low <= volume <= high, severity, text))
    if policy.min_rows is not None:
        text = f"rows: {volume} in the window, at least {policy.min_rows} expected"
        passed, severity = volume >= policy.min_rows, policy.severity("rows")
        checks.append(Check("rows", None, volume, policy.min_rows, passed, severity, text))
    if policy.max_gap_hours is not None and gap_hours is not None:
        most = policy.max_gap_hours
        text = f"freshness: no rows in the {gap_hours:g} hours before the window, at most {most:g} expected"
        severity = policy.severity("freshness")
        checks.append(Check("freshness", None, gap_hours, most, gap_hours <= most, severity, text))
    return checks


def share_checks(
    reference: Mapping[str, Any],
    column: Mapping[str, Any],
    n_columns: int,
    drift: DriftPolicy,
    policy: QualityPolicy,
) -> list[Check]:
    """A column's missing and unseen shares that exceed the reference's (see `share_limit`): failures only.

    What the reference says of categories that it has not seen: as many rows as it has categories seen
    once (Good & Turing 1953), besides those that it counted as others.
    """
    n = sum(column["counts"]) + column["missing"]
    m = sum(reference["counts"]) + reference["missing"]
    if n < drift.min_rows or m == 0:
        return []
    shares = [("missing", column["missing"], reference["missing"])]
    if reference["categories"]:
        *known, others = reference["counts"]
        shares.append(("unseen", column["unseen"], others + known.count(1)))
    name = reference["name"]
    checks = []
    for what, count, usual in shares:
        if count / n <= TOLERATED_SHARE:
            continue
        limit = share_limit(usual, m, n, drift.alpha / n_columns / len(shares))
        if count / n > limit:
            text = (
                f"{name}: {what} in {count / n:.1%} of {n} rows,"
                f" at most {limit:.1%} expected (reference {usual / m:.1%})"
            )
            severity = policy.severity(what)
            checks.append(Check(what, name, count / n, limit, False, severity, text))
    return checks


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


def expected_checks(
    expect: Expect,
    reference: Mapping[str, Any],
    column: Mapping[str, Any],
    bounds: tuple[float, float] | None,
) -> list[Check]:
    """What the Task asks of a feature, each thing passed or failed.

    `bounds`: least and greatest value of the window, None without any. A window knows the categories
    that the reference names, and the rest together: these count as one more.
    """
    name, severity = reference["name"], expect.severity
    n = sum(column["counts"]) + column["missing"]
    checks = _range_checks(expect, name, bounds)
    for what, most in (("missing", expect.max_missing), ("unseen", expect.max_unseen)):
        if most is not None and n and (what == "missing" or reference["categories"]):
            share, limit = column[what] / n, most + SIGMAS * math.sqrt(most * (1 - most) / n)
            text = f"{name}: {what} in {share:.1%} of {n} rows, at most {most:.1%} expected"
            checks.append(Check(what, name, share, limit, share <= limit, severity, text))
    if expect.max_categories is not None and reference["categories"]:
        found, most = sum(count > 0 for count in column["counts"]), expect.max_categories
        text = f"{name}: {found} categories, at most {most} expected"
        checks.append(Check("categories", name, found, most, found <= most, severity, text))
    return checks


def _range_checks(expect: Expect, name: str, bounds: tuple[float, float] | None) -> list[Check]:
    if bounds is None:
        return []
    (least, greatest), checks = bounds, []
    if expect.minimum is not None:
        text = f"{name}: values down to {least:g}, at least {expect.minimum:g} expected"
        passed = least >= expect.minimum
        checks.append(Check("range", name, least, expect.minimum, passed, expect.severity, text))
    if expect.maximum is not None:
        text = f"{name}: values up to {greatest:g}, at most {expect.maximum:g} expected"
        passed = greatest <= expect.maximum
        checks.append(Check("range", name, greatest, expect.maximum, passed, expect.severity, text))
    return checks


def distribution_check(name: str, psi: float, rows: int, policy: QualityPolicy) -> Check:
    """The column's distance from the reference against the policy's ceiling."""
    assert policy.max_psi is not None
    text = f"{name}: PSI {psi:.2f} of {rows} rows, at most {policy.max_psi:.2f} expected"
    passed, severity = psi <= policy.max_psi, policy.severity("distribution")
    return Check("distribution", name, psi, policy.max_psi, passed, severity, text)


def schema_failure(
    name: str, partition: int, found: int, bins: int, policy: QualityPolicy
) -> Check:
    """A partition that summarised a column in other bins than the model's reference has."""
    text = f"{name}: partition {partition} was summarised in {found} bins, the reference has {bins}"
    return Check("schema", name, found, bins, False, policy.severity("schema"), text)
