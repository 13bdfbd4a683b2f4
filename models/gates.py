"""Gates: what a challenger must show on the same rows as the champion before it may answer (pure).

Every gate is a measure and a limit. Live, and when the past is judged again, the same measures go in:
the log keeps all of them, also those that the policy of the day did not ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.intervals import Interval
from models.measures import (
    BYTES,
    CALIBRATION,
    FAIRNESS,
    GOLDEN,
    LATENCY,
    RECENT,
    SLICE,
    UNLABELLED,
    Measure,
)
from streams.estimate import rank_order
from streams.task import GatePolicy

CLIP = 1e-6
"""Scores are held this far from 0 and 1, so that one sure and wrong answer costs 13.8 and not infinity."""
DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean log-loss of both models on `count` rows (see `Measure`)."""

    challenger: float
    champion: float
    count: int
    difference: Interval | None = None
    maturity: float | None = None

    def measure(self, name: str) -> Measure:
        return Measure(
            name, self.challenger, self.champion, self.count, self.difference, self.maturity
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """`gates`: GateResult records of what was judged, `evidence`: Measured records of the rest.

    `reason` in words, with the numbers.
    """

    passed: bool
    gates: tuple[dict[str, Any], ...]
    reason: str
    evidence: tuple[dict[str, Any], ...] = ()


def judge(
    policy: GatePolicy,
    golden: Losses | None,
    recent: Losses,
    *,
    challenger: str,
    champion: str,
    first: bool = False,
    more: Sequence[Measure] = (),
) -> Verdict:
    """Whether `challenger` may take the place of `champion`.

    `golden` is None while the task has no golden set, and is not asked where the policy has no ratio for
    it. `first`: the champion is the cold-start constant, which must be beaten whatever ratio the policy
    allows, and costs nothing. Fewer than `min_rows` rows prove nothing.
    """
    measures = [recent.measure(RECENT)]
    if golden is not None:
        measures.append(golden.measure(GOLDEN))
    measures += more
    return judge_measures(policy, measures, challenger=challenger, champion=champion, first=first)


def judge_again(
    policy: GatePolicy, decision: Mapping[str, Any], *, champion: str, first: bool
) -> Verdict:
    """A logged decision (`model_version`, `gates`, `evidence`) under another policy, from its own numbers."""
    records = [*decision["gates"], *decision.get("evidence", ())]
    order = {RECENT: 0, GOLDEN: 1}
    measures = sorted(map(Measure.of, records), key=lambda measure: order.get(measure.name, 2))
    return judge_measures(
        *(policy, measures),
        challenger=decision["model_version"],
        champion=champion,
        first=first,
        again=True,
    )


def judge_measures(
    policy: GatePolicy,
    measures: Sequence[Measure],
    *,
    challenger: str,
    champion: str,
    first: bool = False,
    again: bool = False,
) -> Verdict:
    """As `judge`; a gate that is asked for and was never measured is passed by, and the reason says so.

    `again`: the measures come from the log, so that a golden loss may be missing for its age alone.
    """
    limits = Limits(policy, measures, first)
    judged = [(measure, limits.of(measure)) for measure in measures]
    gates = [
        measure.judged(limit.threshold, limit.passed)
        for measure, limit in judged
        if limit is not None
    ]
    evidence = [measure.record() for measure, limit in judged if limit is None]
    failed = [limit.words for _, limit in judged if limit is not None and not limit.passed]
    held = [limit.words for _, limit in judged if limit is not None and limit.named]
    said = "; ".join([*(failed or held), *limits.unknown(again)])
    verb = "stays behind" if failed else "passed its gates against"
    return Verdict(
        not failed, tuple(gates), f"{challenger} {verb} {champion}: {said}", tuple(evidence)
    )


@dataclass(frozen=True, slots=True)
class Limit:
    """What a policy makes of one measure. `named`: worth a word even if it was held."""

    threshold: float
    passed: bool
    words: str
    named: bool = False


class Limits:
    """The limits of one policy on the measures of one decision."""

    def __init__(self, policy: GatePolicy, measures: Iterable[Measure], first: bool) -> None:
        self._policy = policy
        self._by_name = {measure.name: measure for measure in measures}
        self._first = first
        slices = sum(name.startswith(SLICE) for name in self._by_name)
        self._slice_confidence = 1 - 2 * (1 - policy.confidence) / max(1, slices)
        """Two-sided, so that one side has (1 - confidence) / slices: Bonferroni."""

    def of(self, measure: Measure) -> Limit | None:
        """None where the policy does not ask for it."""
        kinds: dict[str, Callable[[Measure], Limit | None]] = {
            RECENT: self._recent,
            GOLDEN: self._golden,
            UNLABELLED: self._maturity,
            CALIBRATION: self._calibration,
            LATENCY: self._latency,
            BYTES: self._size,
            SLICE: self._slice,
            FAIRNESS: self._fairness,
        }
        kind, dot, _ = measure.name.partition(".")
        limit = kinds.get(kind + dot)
        return limit(measure) if limit else None

    def unknown(self, golden: bool) -> list[str]:
        """A sentence if the policy asks for something that was not measured (an older log)."""
        policy = self._policy
        asked = {
            GOLDEN: golden and policy.max_golden_ratio is not None,
            CALIBRATION: policy.max_calibration_error is not None,
            UNLABELLED: policy.min_maturity is not None,
            LATENCY: policy.max_latency_ratio is not None and not self._first,
            BYTES: policy.max_size_ratio is not None and not self._first,
            **{f"{SLICE}{name}": True for name in policy.slices},
        }
        if policy.fairness is not None:
            asked[f"{FAIRNESS}{policy.fairness.metric}.{policy.fairness.group}"] = True
        missing = [
            name.strip(".").replace("_", " ")
            for name, wanted in asked.items()
            if wanted and not any(known.startswith(name) for known in self._by_name)
        ]
        return [f"not measured: {', '.join(missing)}"] if missing else []

    def _recent(self, measure: Measure) -> Limit:
        policy = self._policy
        assert measure.baseline is not None
        if policy.rule == "ratio" or self._first:
            most = policy.max_recent_ratio if not self._first else min(policy.max_recent_ratio, 1.0)
            return self._loss(measure, measure.baseline * most)
        if measure.difference is None:
            words = (
                f"{_name(measure)} has no interval: its rows lie in less than two blocks of time"
            )
            return Limit(measure.baseline, False, words, True)
        half = measure.difference.half(policy.confidence)
        equal = self._loss(measure, measure.baseline * (1 + policy.margin) - half)
        cheaper = self._cheaper()
        if policy.rule == "not_worse" or cheaper:
            return Limit(equal.threshold, equal.passed, f"{equal.words}{cheaper}", True)
        # The same model again (a fit of the same rows) differs by nothing at all: that is no gain.
        return self._loss(measure, measure.baseline - half - 10**-DECIMALS)

    def _golden(self, measure: Measure) -> Limit | None:
        most = self._policy.max_golden_ratio
        if most is None:
            return None
        assert measure.baseline is not None
        return self._loss(measure, measure.baseline * (min(most, 1.0) if self._first else most))

    def _loss(self, measure: Measure, threshold: float) -> Limit:
        """The value must be at most `threshold`, and enough rows must be behind it."""
        least, threshold = self._policy.min_rows, round(threshold, DECIMALS)
        if measure.count < least:
            words = (
                f"{_name(measure)} is known for {measure.count} rows only, {least} are asked for"
            )
            return Limit(threshold, False, words, True)
        passed = measure.value <= threshold
        spread = ""
        if measure.difference is not None:
            half = measure.difference.half(self._policy.confidence)
            spread = f", difference {measure.difference.mean:+.4f} +- {half:.4f}"
        words = (
            f"{_name(measure)} {measure.value:.4f} {'<=' if passed else '>'} {threshold:.4f}"
            f" (champion {measure.baseline:.4f}, {measure.count} rows{spread})"
        )
        return Limit(threshold, passed, words, True)

    def _cheaper(self) -> str:
        """In words what is so much cheaper that an equal model is wanted; empty if nothing is."""
        for name, noun in ((BYTES, "bytes"), (LATENCY, "latency")):
            measure = self._by_name.get(name)
            if measure is None or not measure.baseline:
                continue
            share = measure.value / measure.baseline
            if share <= self._policy.cheaper:
                return f", equal and cheaper: {share:.2f} of the champion's {noun}"
        return ""

    def _maturity(self, measure: Measure) -> Limit | None:
        least = self._policy.min_maturity
        if least is None:
            return None
        known = 1 - measure.value
        words = f"{known:.1%} of the recent labels are known, {least:.1%} are asked for"
        if measure.maturity is None:
            words = (
                "nothing is so old that all its labels are known: how mature they are is unknown"
            )
        threshold = round(1 - least, DECIMALS)
        return Limit(threshold, measure.maturity is not None and measure.value <= threshold, words)

    def _calibration(self, measure: Measure) -> Limit | None:
        most = self._policy.max_calibration_error
        return None if most is None else _at_most(measure, most, "calibration error beyond chance")

    def _latency(self, measure: Measure) -> Limit | None:
        most = self._policy.max_latency_ratio
        return None if most is None or self._first else _cost(measure, most, "latency", "us a row")

    def _size(self, measure: Measure) -> Limit | None:
        most = self._policy.max_size_ratio
        return None if most is None or self._first else _cost(measure, most, "size", "bytes")

    def _slice(self, measure: Measure) -> Limit | None:
        """Fails if the loss is beyond the ratio by more than chance explains in so many slices."""
        column, _, value = measure.name.removeprefix(SLICE).partition(".")
        if column not in self._policy.slices:
            return None
        if measure.baseline is None or measure.difference is None:
            return None
        chance = measure.difference.half(self._slice_confidence)
        threshold = round(measure.baseline * self._policy.max_slice_ratio + chance, DECIMALS)
        passed = measure.value <= threshold
        words = (
            f"log-loss where {column} is {value} {measure.value:.4f} {'<=' if passed else '>'}"
            f" {threshold:.4f} (champion {measure.baseline:.4f}, {measure.count} rows)"
        )
        return Limit(threshold, passed, words)

    def _fairness(self, measure: Measure) -> Limit | None:
        fairness = self._policy.fairness
        if fairness is None or measure.name != f"{FAIRNESS}{fairness.metric}.{fairness.group}":
            return None
        before = measure.baseline or 0.0
        noun = f"{fairness.metric.replace('_', ' ')} gap between values of {fairness.group}"
        return _at_most(measure, max(fairness.max_gap, before), noun)


def _at_most(measure: Measure, threshold: float, noun: str) -> Limit:
    passed = measure.value <= threshold
    before = "" if measure.baseline is None else f"champion {measure.baseline:.4f}, "
    words = (
        f"{noun} {measure.value:.4f} {'<=' if passed else '>'} {threshold:.4f}"
        f" ({before}{measure.count} rows)"
    )
    return Limit(threshold, passed, words)


def _cost(measure: Measure, most: float, noun: str, unit: str) -> Limit | None:
    if not measure.baseline:
        return None
    threshold = round(measure.baseline * most, DECIMALS)
    passed = measure.value <= threshold
    words = (
        f"{noun} {measure.value:,.4g} {unit}, {measure.value / measure.baseline:.2f} times the"
        f" champion's {measure.baseline:,.4g}, {'at most' if passed else 'more than'} {most:g}"
    )
    return Limit(threshold, passed, words)


def _name(measure: Measure) -> str:
    return measure.name.replace("_", " ").replace("log loss", "log-loss")


def losses(labels: ArrayLike, scores: ArrayLike) -> NDArray[np.float64]:
    """-ln P(label) of each row, scores held `CLIP` away from 0 and 1."""
    y, p = _pair(labels, scores)
    return np.asarray(-np.where(y, np.log(p), np.log1p(-p)))


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean of `losses`; 0.0 without rows."""
    found = losses(labels, scores)
    return round(float(found.mean()), DECIMALS) if len(found) else 0.0


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared error of the score (Brier 1950); 0.0 without rows."""
    y, p = _pair(labels, scores)
    return round(float(((p - y) ** 2).mean()), DECIMALS) if len(y) else 0.0


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve, see `streams.estimate.rank_order`; 0.5 without both classes."""
    y, p = _pair(labels, scores)
    return rank_order(p, y)


def _pair(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    y = np.asarray(labels).astype(np.bool_)
    return y, np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)


def metrics(labels: Sequence[int] | NDArray[Any], scores: NDArray[np.float64]) -> dict[str, float]:
    """log_loss, brier, auc and the number of rows behind them."""
    return {
        "log_loss": log_loss(labels, scores),
        "brier": brier(labels, scores),
        "auc": auc(labels, scores),
        "rows": float(len(scores)),
    }
