"""Tests that stay valid however often one looks at them: a rollout is looked at after every label.

`radius`: the one-sided asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas,
"Time-uniform central limit theory and asymptotic confidence sequences" (Annals of Statistics, 2024), a
normal mixture as in Robbins (1970) and the mSPRT of Johari et al. (Operations Research, 2022), in intrinsic
time (the inverse of the squared standard error). It needs sums only, so the order of the evidence makes no
difference. `mismatch`: Lindon and Malek, "Anytime-valid inference for multinomial count data" (NeurIPS 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

FIXED_POINT = 1_000_000
"""Losses are whole numbers of 1e-6 nats: they add up to the same total in any order."""
LEAST_SCORE = 0.01
"""Scores are cut to [0.01, 0.99] for the test: no single confident miss decides."""
EFFECT = 0.1
"""Scale of the differences (nats) that the mixture looks for: it is tightest about there."""
PRIOR_VARIANCE = 1.0
"""One imagined loss a nat away from the mean: a few equal losses prove nothing."""
PRIOR_COUNTS = 100.0


def loss(score: float, label: int) -> int:
    """Log-loss of a score (probability of 1) in 1e-6 nats, cut as LEAST_SCORE says."""
    chance = min(max(score if label else 1.0 - score, LEAST_SCORE), 1.0 - LEAST_SCORE)
    return round(-math.log(chance) * FIXED_POINT)


@dataclass(slots=True)
class Sums:
    """Count, sum and sum of squares of losses or of their differences (1e-6 nats)."""

    count: int = 0
    total: int = 0
    squares: int = 0

    def add(self, value: int) -> None:
        self.count += 1
        self.total += value
        self.squares += value * value

    def merge(self, other: Sums) -> None:
        self.count += other.count
        self.total += other.total
        self.squares += other.squares

    @property
    def mean(self) -> float:
        """Nats; 0 of nothing."""
        return self.total / self.count / FIXED_POINT if self.count else 0.0

    @property
    def error(self) -> float:
        """Squared standard error of the mean (nats squared), with PRIOR_VARIANCE / n in the variance."""
        n = self.count
        if n < 2:
            return math.inf
        # In integers: the difference of two large numbers must not lose its digits.
        spread = (n * self.squares - self.total * self.total) / (n * (n - 1)) / FIXED_POINT**2
        return (spread + PRIOR_VARIANCE / n) / n


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean (nats), its squared standard error, and the labels behind it."""

    mean: float
    error: float
    count: int

    def above(self, alpha: float) -> float:
        """Lower confidence bound: the truth is above it, at all times at once, but for a chance `alpha`."""
        return self.mean - radius(self.error, alpha)

    def below(self, alpha: float) -> float:
        """Upper confidence bound."""
        return self.mean + radius(self.error, alpha)


def mean_of(sums: Sums) -> Estimate:
    return Estimate(sums.mean, sums.error, sums.count)


def difference(strata: Iterable[tuple[Sums, Sums]], least: int) -> Estimate | None:
    """Challenger minus champion over steps, each weighted by its precision; None if no step has `least`.

    Compared within steps only: the share of the challenger changes with them, and so may the traffic.
    """
    precision = weighted = 0.0
    count = 0
    for challenger, champion in strata:
        if min(challenger.count, champion.count) < max(least, 2):
            continue
        weight = 1.0 / (challenger.error + champion.error)
        precision += weight
        weighted += weight * (challenger.mean - champion.mean)
        count += challenger.count + champion.count
    return Estimate(weighted / precision, 1.0 / precision, count) if count else None


def radius(error: float, alpha: float, effect: float = EFFECT) -> float:
    """Half width of the one-sided confidence sequence; `error`: squared standard error.

    sqrt(2 (v + 1) / (v V) log(1 + sqrt(v + 1) / (2 alpha))) with V = 1 / error and v = V effect^2.
    """
    if not math.isfinite(error):
        return math.inf
    information = 1.0 / error
    scaled = information * effect * effect
    wide = math.log1p(math.sqrt(scaled + 1.0) / (2.0 * alpha))
    return math.sqrt(2.0 * (scaled + 1.0) / (scaled * information) * wide)


def fixed_limit(sums: Sums, alpha: float) -> float:
    """Upper confidence bound of a mean that was looked at once (normal approximation)."""
    return sums.mean + NormalDist().inv_cdf(1.0 - alpha) * math.sqrt(sums.error)


def mismatch(counts: Iterable[tuple[int, int, float]]) -> float:
    """Log of the evidence (e-value) that units were not dealt as declared; alarm at log(1 / alpha).

    `counts`: (challenger's, champion's, declared share of the challenger) per step.
    """
    found = 0.0
    for mine, theirs, share in counts:
        if not 0.0 < share < 1.0:
            continue
        a, b = PRIOR_COUNTS * share, PRIOR_COUNTS * (1.0 - share)
        found += _log_beta(a + mine, b + theirs) - _log_beta(a, b)
        found -= mine * math.log(share) + theirs * math.log1p(-share)
    return found


def psi(left: Sequence[int], right: Sequence[int]) -> float:
    """Population stability index of two histograms over the same bins, half a count added to each bin."""
    size = len(left)
    n, m = sum(left) + size / 2, sum(right) + size / 2
    shares = [((a + 0.5) / n, (b + 0.5) / m) for a, b in zip(left, right, strict=True)]
    return sum((p - q) * math.log(p / q) for p, q in shares)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
