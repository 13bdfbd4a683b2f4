"""What the retrain policy makes of one window, and how it says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from streams.task import Task

NAMED_COLUMNS = 3
"""Columns that a sentence names; the evidence has up to EVIDENCE_COLUMNS."""
EVIDENCE_COLUMNS = 20
LEAST_ALLOWED = 1e-6


@dataclass(slots=True)
class DriftFacts:
    """The DriftScored events of one window: how many rows and features, and which columns drifted."""

    count: int
    features: int = 0
    drifted: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Column (a feature or 'score') -> PSI, threshold."""

    def add(self, data: Mapping[str, Any]) -> None:
        self.features += data["feature"] != "score"
        if data["drifted"]:
            self.drifted[data["feature"]] = data["psi"], data["threshold"]

    @property
    def drifted_features(self) -> int:
        return len(self.drifted) - ("score" in self.drifted)

    @property
    def worst(self) -> list[tuple[str, float, float]]:
        """Drifted columns (name, PSI, threshold), furthest beyond its threshold first."""
        columns = [(name, psi, limit) for name, (psi, limit) in self.drifted.items()]
        return sorted(columns, key=lambda column: (column[2] - column[1], column[0]))

    def votes(self, task: Task) -> bool:
        """True if the score or enough of the features drifted; never with fewer than min_rows rows."""
        if self.count < task.drift.min_rows or not self.drifted:
            return False
        enough = self.drifted_features >= task.retrain.drifted_share * self.features
        return enough or "score" in self.drifted

    def __str__(self) -> str:
        score = "the score and " if "score" in self.drifted else ""
        return f"{score}{self.drifted_features} of {self.features} columns drifted"


@dataclass(slots=True)
class Measured:
    """The first PerformanceMeasured of one window."""

    event_id: str
    time: int
    version: str
    start: int
    end: int
    labelled: int
    expected: float | None
    log_loss: float | None
    threshold: float | None
    degraded: bool
    change_detected: bool

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Measured:
        return cls(
            event_id=data["event_id"],
            time=data["event_time"],
            version=data["model_version"],
            start=data["window_start"],
            end=data["window_end"],
            labelled=data["labelled"],
            expected=data["expected_log_loss"],
            log_loss=data["log_loss"],
            threshold=data["threshold"],
            degraded=data["degraded"],
            change_detected=data["change_detected"],
        )

    def votes(self, task: Task) -> bool:
        """True if the loss passed its threshold or Page-Hinkley raised an alarm, with enough labels."""
        return self.labelled >= task.drift.min_rows and (self.degraded or self.change_detected)

    def sure(self, task: Task) -> bool:
        """True if the loss is so high that no second window is needed."""
        least = task.retrain.sure_at
        if least is None or self.log_loss is None:
            return False
        if self.threshold is None or self.expected is None or self.labelled < task.drift.min_rows:
            return False
        allowed = max(self.threshold - self.expected, LEAST_ALLOWED)
        return self.log_loss - self.expected >= least * allowed

    def __str__(self) -> str:
        if self.log_loss is None or self.threshold is None or self.expected is None:
            return "no log-loss"
        sign = ">" if self.degraded else "<="
        text = f"log-loss {self.log_loss:.3f} {sign} {self.threshold:.3f}"
        if self.change_detected:
            text += f" and rising (Page-Hinkley, {self.expected:.3f} expected)"
        return text


@dataclass(slots=True)
class Verdict:
    """One judged window."""

    measured: Measured
    drift: DriftFacts | None
    drift_vote: bool
    performance_vote: bool
    sure: bool = False
    """Whether its loss suffices alone."""


def drift_sentence(history: Sequence[Verdict], task: Task) -> str:
    """E.g. '4 of 18 columns drifted in 2 of the last 3 days: carrier_late_24h PSI 0.41 > 0.18, ...'.

    The columns are those of the newest window that votes.
    """
    voting = [verdict.drift for verdict in history if verdict.drift_vote and verdict.drift]
    if not voting:
        return f"no drift in the last {_windows(len(history), task)}"
    facts = voting[-1]
    named = [f"{name} PSI {psi:.2f} > {limit:.2f}" for name, psi, limit in facts.worst]
    more = [f"{len(named) - NAMED_COLUMNS} more"] if len(named) > NAMED_COLUMNS else []
    of_windows = _windows(len(history), task)
    return (
        f"{facts} in {len(voting)} of the last {of_windows}:"
        f" {', '.join(named[:NAMED_COLUMNS] + more)}"
    )


def performance_sentence(history: Sequence[Verdict], task: Task) -> str:
    """E.g. 'log-loss 0.512 > 0.497, a vote in 2 of the last 3 days'."""
    voting = [verdict.measured for verdict in history if verdict.performance_vote]
    of_windows = _windows(len(history), task)
    if len(voting) < task.retrain.votes and history[-1].sure:
        return f"{voting[-1]}, so far beyond chance that one {_word(task)} suffices"
    if not voting:
        return f"log-loss as expected in the last {of_windows}"
    return f"{voting[-1]}, a vote in {len(voting)} of the last {of_windows}"


def growth_sentence(before: int, since: int) -> str:
    """E.g. '7,900 labels came since the last request: 51 % more than the 15,500 before it'."""
    more = round(100 * since / before)
    return (
        f"{since:,} labels came since the last request: {more} % more than the {before:,} before it"
    )


def follow_up_sentence(before: int, since: int) -> str:
    """E.g. '3,100 labels since the change: 2,000 of them were known to the last request'."""
    return f"{since:,} labels since the change: {before:,} of them were known to the last request"


def evidence(history: Sequence[Verdict], labels: int) -> dict[str, float]:
    """The numbers behind a decision, for machines."""
    numbers: dict[str, float] = {
        "labels": float(labels),
        "windows": float(len(history)),
        "drift_votes": float(sum(verdict.drift_vote for verdict in history)),
        "performance_votes": float(sum(verdict.performance_vote for verdict in history)),
    }
    newest = history[-1].measured
    losses = {
        "log_loss": newest.log_loss,
        "log_loss_threshold": newest.threshold,
        "expected_log_loss": newest.expected,
    }
    numbers |= {name: value for name, value in losses.items() if value is not None}
    voting = [verdict.drift for verdict in history if verdict.drift_vote and verdict.drift]
    if voting:
        numbers["drifted_columns"] = float(voting[-1].drifted_features)
        numbers["columns"] = float(voting[-1].features)
        for name, psi, limit in voting[-1].worst[:EVIDENCE_COLUMNS]:
            numbers[f"psi.{name}"] = psi
            numbers[f"threshold.{name}"] = limit
    return numbers


def _windows(count: int, task: Task) -> str:
    return f"{count} {_word(task)}s" if count != 1 else _word(task)


def _word(task: Task) -> str:
    hours = task.drift.window_hours
    return "day" if hours == 24 else f"{hours:g}-hour window"
