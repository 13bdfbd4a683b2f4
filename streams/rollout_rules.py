"""What the evidence says about a rollout or a watched promotion: a verdict with its numbers, or nothing yet.

Functions of sums: no order, no clock. Harm may end a rollout at any label, because the tests of
`streams.sequential` allow looking at any time; going on needs labels and event time, too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from streams.rollout_evidence import (
    CHALLENGER,
    CHAMPION,
    NULL,
    SCORE_BINS,
    Arm,
    EvidenceState,
    Pair,
    level,
)
from streams.rollout_state import Reign, Rollout
from streams.sequential import (
    Estimate,
    Sums,
    difference,
    fixed_limit,
    mean_of,
    mismatch,
    psi,
)
from streams.task import HOUR_MS, RolloutPolicy

MISMATCH_ALPHA = 0.001
MIN_STRATUM = 30
"""Labels of each arm below which a step is not compared: means of fewer are not normal."""
MIN_NULLS = 5
ABORT, ADVANCE, FINISH = "RolloutAborted", "RolloutAdvanced", "RolloutFinished"


@dataclass(frozen=True, slots=True)
class Move:
    """What is to be said next: the event's type, the share from then on, why."""

    type: str
    share: float
    reason: str
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Seen:
    """The evidence about a rollout, whatever its strategy."""

    estimate: Estimate | None
    """Challenger minus champion, nats; None before there are labels enough to speak of."""
    champion: Sums
    step_labels: int
    """Labels of the scarcer arm in the present step."""
    exposures: int = 0
    """Requests dealt to (or shadowed by) the challenger."""
    nulls: int = 0
    mine: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    theirs: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    mismatch: float = 0.0
    """Log of the e-value that the shares were not those declared."""

    def numbers(self, alpha: float) -> dict[str, float]:
        found = {
            "exposures": float(self.exposures),
            "nulls": float(self.nulls),
            "champion_log_loss": self.champion.mean,
        }
        if self.estimate is not None:
            found |= {
                "labels": float(self.estimate.count),
                "log_loss_difference": self.estimate.mean,
                "lower": self.estimate.above(alpha),
                "upper": self.estimate.below(alpha),
                "alpha": alpha,
            }
        return {name: round(value, 6) for name, value in found.items()}


def first_move(rollout: Rollout) -> Move | None:
    """The step that begins it, once the challenger is known; None for blue-green, which has no steps."""
    rules = rollout.rules
    if rollout.strategy == "shadow":
        return Move(ADVANCE, 0.0, f"{rollout.version} scores in the shadow of {rollout.baseline}")
    if rollout.strategy == "canary" and rules.steps[0] < 1.0:
        share = rules.steps[0]
        return Move(ADVANCE, share, f"{rollout.version} answers {share:.0%} of the requests")
    if rollout.strategy == "ab":
        words = f"{rollout.version} answers {rules.share:.0%} until there is a verdict"
        return Move(ADVANCE, rules.share, words)
    return None


def harm(rollout: Rollout, seen: Seen) -> Move | None:
    """A reason to abort, if there is one: holds at any time, also while a person has said 'hold'."""
    rules = rollout.rules
    why = _guard_rails(rules, seen)
    if why is None and seen.estimate is not None and seen.estimate.above(rules.alpha) > 0:
        why = f"its log-loss is higher: {_sentence(seen.estimate, rules.alpha)}"
    if why is None:
        return None
    return Move(ABORT, 0.0, why, seen.numbers(rules.alpha))


def progress(rollout: Rollout, seen: Seen, now: int) -> Move | None:
    """The next step, the end, or nothing yet; `now`: event time (ms)."""
    rules = rollout.rules
    ready = (
        now - rollout.since >= rules.step_hours * HOUR_MS
        and seen.step_labels >= rules.min_labels
        and seen.estimate is not None
    )
    if ready and seen.estimate is not None:
        move = _next(rollout, rules, seen.estimate, seen.champion.mean * rules.max_regression)
        if move is not None:
            return Move(move.type, move.share, move.reason, seen.numbers(rules.alpha))
    if now - rollout.started > rules.max_hours * HOUR_MS:
        why = f"no verdict within {rules.max_hours:g} hours: {rollout.baseline} stays"
        if seen.estimate is not None:
            why += f" ({_sentence(seen.estimate, rules.alpha)})"
        return Move(ABORT, 0.0, why, seen.numbers(rules.alpha))
    return None


def regression(
    rules: RolloutPolicy, reign: Reign, evidence: EvidenceState, baseline: Sums
) -> Move | None:
    """Whether a watched promotion is to be taken back; `baseline`: the losses of the version before.

    Paired with the version before in the shadow where it scores on, else against its level: the bound of
    the new version's mean holds at all times (alpha / 2), that of the level was taken once (alpha / 2).
    """
    pair = evidence.pairs.get(reign.id)
    if pair is not None:
        return _paired_regression(rules, reign, pair)
    since = level(evidence, reign.version, reign.since, reign.since + rules.watch_ms)
    if min(since.count, baseline.count) < max(rules.min_labels, MIN_STRATUM):
        return None
    tolerated = 1.0 + rules.max_regression
    if since.mean <= baseline.mean * tolerated:
        return None
    limit = fixed_limit(baseline, rules.alpha / 2) * tolerated
    now = mean_of(since)
    if now.above(rules.alpha / 2) <= limit:
        return None
    numbers = {
        "log_loss": now.mean,
        "lower": now.above(rules.alpha / 2),
        "limit": limit,
        "labels": float(now.count),
        "baseline_log_loss": baseline.mean,
        "baseline_labels": float(baseline.count),
        "alpha": rules.alpha,
    }
    reason = (
        f"log-loss {now.mean:.4f} on {now.count:,} labels since the promotion of {reign.version}, proven"
        f" above {limit:.4f}: {reign.previous} had {baseline.mean:.4f} on {baseline.count:,} before"
        f" (alpha {rules.alpha:g})"
    )
    return Move("ModelRolledBack", 0.0, reason, numbers)


def _paired_regression(rules: RolloutPolicy, reign: Reign, pair: Pair) -> Move | None:
    """The version before scores the same requests: a change of the world hits both and proves nothing."""
    better = mean_of(pair.differences)  # the version before minus the one that answers
    if better.count < rules.min_labels or better.below(rules.alpha) >= 0:
        return None
    worse = Estimate(-better.mean, better.error, better.count)
    before = pair.losses.mean + better.mean
    numbers = {
        "log_loss": pair.losses.mean,
        "baseline_log_loss": before,
        "limit": before,
        "lower": before + worse.above(rules.alpha),
        "labels": float(worse.count),
        "baseline_labels": float(worse.count),
        "alpha": rules.alpha,
    }
    told = _sentence(worse, rules.alpha)
    reason = f"{reign.version} is worse, paired with {reign.previous}: {told}"
    return Move("ModelRolledBack", 0.0, reason, numbers)


def _next(rollout: Rollout, rules: RolloutPolicy, found: Estimate, tolerated: float) -> Move | None:
    """`tolerated`: difference of log-loss (nats) that is no reason to stay."""
    said = _sentence(found, rules.alpha)
    if rollout.strategy == "shadow" and found.below(rules.alpha) <= tolerated:
        return Move(FINISH, 1.0, f"not worse by more than {tolerated:.4f} in the shadow: {said}")
    if rollout.strategy == "ab" and found.below(rules.alpha) < 0:
        return Move(FINISH, 1.0, f"better: {said}")
    if rollout.strategy == "canary" and found.mean <= tolerated:
        later = [share for share in rules.steps if share > rollout.share]
        if later and later[0] < 1.0:
            return Move(ADVANCE, later[0], f"no harm at {rollout.share:.0%}: {said}")
        return Move(FINISH, 1.0, f"no harm at {rollout.share:.0%}, the last step: {said}")
    return None


def _guard_rails(rules: RolloutPolicy, seen: Seen) -> str | None:
    if seen.mismatch >= -math.log(MISMATCH_ALPHA):
        return (
            "sample ratio mismatch: the requests were not dealt in the declared shares"
            f" (e-value {math.exp(min(seen.mismatch, 700.0)):.3g}); nothing that was compared can be believed"
        )
    if seen.nulls >= MIN_NULLS and seen.nulls > rules.max_null_share * seen.exposures:
        return f"no finite score for {seen.nulls:,} of {seen.exposures:,} requests"
    if rules.max_score_psi is None or min(sum(seen.mine), sum(seen.theirs)) < rules.min_labels:
        return None
    if max(seen.theirs) == sum(seen.theirs):
        return None  # a constant: any model differs from it
    moved = psi(seen.mine, seen.theirs)
    if moved > rules.max_score_psi:
        return f"its scores are distributed otherwise: PSI {moved:.2f} > {rules.max_score_psi:g}"
    return None


def seen_of(rollout: Rollout, evidence: EvidenceState) -> Seen:
    """Everything that the evidence says about a rollout."""
    if rollout.strategy == "shadow":
        return _paired(evidence.pairs.get(rollout.id, Pair()))
    nobody = Arm()
    arms = [
        [evidence.arms.get(f"{rollout.id}/{step}/{arm}", nobody) for arm in _ARMS]
        for step in range(1, rollout.step + 1)
    ]
    champion = Sums()
    for _, theirs, _ in arms:
        champion.merge(theirs.losses)
    mine, theirs, _ = arms[-1] if arms else (nobody, nobody, nobody)
    dealt = [
        (mine.exposures + null.exposures, theirs.exposures, share)
        for (mine, theirs, null), share in zip(arms, rollout.shares[1:], strict=False)
    ]
    return Seen(
        difference(((a.losses, b.losses) for a, b, _ in arms), MIN_STRATUM),
        champion,
        min(mine.losses.count, theirs.losses.count),
        sum(count for count, _, _ in dealt),
        sum(null.exposures for _, _, null in arms),
        _added(mine.bins for mine, _, _ in arms),
        _added(theirs.bins for _, theirs, _ in arms),
        # Of entities that answer together: their requests are not dealt one by one.
        0.0 if rollout.rules.sticky_by else mismatch(dealt),
    )


_ARMS = CHALLENGER, CHAMPION, NULL


def _paired(pair: Pair) -> Seen:
    enough = pair.differences.count >= MIN_STRATUM
    return Seen(
        mean_of(pair.differences) if enough else None,
        pair.losses,
        pair.differences.count,
        pair.exposures,
        pair.nulls,
        pair.shadowed,
        pair.answered,
    )


def _added(histograms: Iterator[list[int]]) -> list[int]:
    total = [0] * SCORE_BINS
    for bins in histograms:
        total = [a + b for a, b in zip(total, bins, strict=True)]
    return total


def _sentence(found: Estimate, alpha: float) -> str:
    """E.g. 'log-loss +0.0412 (at least +0.0107, at most +0.0717, alpha 0.01) on 1,234 labels'."""
    low, high = found.above(alpha), found.below(alpha)
    return (
        f"log-loss {found.mean:+.4f} (at least {low:+.4f}, at most {high:+.4f}, alpha {alpha:g})"
        f" on {found.count:,} labels"
    )
