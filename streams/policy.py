"""The retrain policy: when to ask for a new model, and when to alert.

Two topics tell about a window: its drift scores, and, a label delay later, its performance. They are read
independently, so every decision is bound to the order *within* each: a window is decided in the order of
the performance topic, with the first statement of its drift, whichever topic was read further.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import (
    ALERTS,
    DRIFT_SCORES,
    PERFORMANCE_SCORES,
    QUALITY_REPORTS,
    RETRAIN_REQUESTS,
)
from schemas.event import Event, derive
from streams.canonical import transient
from streams.task import DAY_MS, HOUR_MS, LABEL, Task
from streams.verdict import (
    DriftFacts,
    Measured,
    Verdict,
    drift_sentence,
    evidence,
    follow_up_sentence,
    growth_sentence,
    performance_sentence,
)

FOLLOW_UP_GROWTH = 1.5
APART = 0.1
"""Relative difference of two versions' losses that is more than a window's noise."""
REFRESHED = (0.25, 0.5)
"""Newest shares of the training time that a refresh tries alone."""
WAITING_WINDOWS = 4096
"""Windows that may wait for the other topic: more than ten years of days."""


@dataclass(slots=True)
class VersionDrift:
    """What the drift topic said about one version."""

    window: int = -1
    """The window whose columns are being read, at `revision`."""
    revision: int = 0
    reading: DriftFacts | None = None
    stated: int = -1
    """The last window whose statement was complete; first statements come in window order."""
    facts: dict[int, DriftFacts] = field(default_factory=dict)
    decided: int = -1
    """The last window whose performance was decided: nobody will ask for its facts again."""


@dataclass(slots=True)
class PolicyState:
    drift: dict[str, VersionDrift] = field(default_factory=dict)
    furthest_drift: int = -1
    measured: dict[str, int] = field(default_factory=dict)
    """Version -> its last measured window."""
    queue: list[Measured] = field(default_factory=list)
    """Measured windows that wait for their drift, in the order of the performance topic."""
    version: str = ""
    """The version that the policy watches."""
    last_window: int = -1
    history: list[Verdict] = field(default_factory=list)
    labels: int = 0
    """Labels since the last request."""
    labels_before: int = 0
    """Labels that were known at the last request."""
    requested_at: int | None = None
    asked_for: str = ""
    """The version that answered when the last request was made."""
    follow_ups: int = 0
    """How many more requests the last change is worth."""
    changed_under: str = ""
    """The version that answered when it began: follow-ups wait for its successor."""
    changed: int = 0
    """Labels since the last change began."""
    changed_before: int = 0
    """As many of them were known at the last request."""
    tried_since: list[int] = field(default_factory=list)
    """When it may have begun (ms)."""
    refreshed: bool = False
    """Whether the last request was a refresh: it claimed nothing, so a claim need not wait after it."""
    loss_before: float | None = None
    """Mean log-loss of the version that answered when the last request, a refresh, was made."""
    alerts: set[str] = field(default_factory=set)
    checked: dict[str, int] = field(default_factory=dict)
    """Version -> the last window whose quality was checked."""
    due: list[Event] = transient(default_factory=list)
    """What the last applied batch decided."""


class RetrainReactor:
    """Reactor: DriftScored + PerformanceMeasured -> RetrainRequested; with QualityChecked -> alerts.

    The newest measured version is watched; an older one again only after the newer has been silent for two
    windows (a rollback). Restatements of a window change nothing that was, or is about to be, decided.
    An alert is raised when the votes suffice, and resolved when no window in sight votes any more.
    """

    topics = (DRIFT_SCORES, PERFORMANCE_SCORES, QUALITY_REPORTS)

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = f"{task.name}.policy"
        self._width = task.window_ms
        self._memory = task.recipe.training_days * DAY_MS
        days = task.recipe.training_days * (task.retrain.refresh or 0)
        self._refresh_sentence = (
            f"no training for {days:g} of the {task.recipe.training_days} days that one reads"
        )

    def initial(self) -> PolicyState:
        return PolicyState()

    def apply(self, state: PolicyState, batch: Sequence[Event]) -> PolicyState:
        state.due = []
        for event in batch:
            if event.data["task"] != self.task.name:
                continue
            if event.topic == QUALITY_REPORTS:
                self._checked(state, event)
                continue
            if event.topic == DRIFT_SCORES:
                self._drifted(state, event)
            else:
                self._measured(state, event)
            while state.queue and self._drift_is_known(state, state.queue[0]):
                self._decide(state, state.queue.pop(0))
        return state

    def react(self, state: PolicyState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due

    def _drifted(self, state: PolicyState, event: Event) -> None:
        data, start = event.data, event.data["window_start"]
        if data["feature"] == LABEL:
            return  # known late: performance, which is judged with it, has its own vote
        drift = state.drift.setdefault(data["model_version"], VersionDrift())
        if start <= drift.stated or self._given_up(state, start):
            return
        if drift.reading is None or (drift.window, drift.revision) != (start, data["revision"]):
            drift.window, drift.revision = start, data["revision"]
            drift.reading = DriftFacts(data["count"])
        drift.reading.add(data)
        if data["feature"] != "score":
            return
        drift.stated = start
        state.furthest_drift = max(state.furthest_drift, start)
        if start > drift.decided:
            drift.facts[start] = drift.reading
            for old in sorted(drift.facts)[:-WAITING_WINDOWS]:
                del drift.facts[old]
        drift.reading = None

    def _measured(self, state: PolicyState, event: Event) -> None:
        measured = Measured.of(event.data)
        if measured.start > state.measured.get(measured.version, -1):
            state.measured[measured.version] = measured.start
            state.queue.append(measured)

    def _drift_is_known(self, state: PolicyState, measured: Measured) -> bool:
        """True if the drift of the window has been stated, or will never be."""
        if measured.expected is None or self._given_up(state, measured.start):
            return True
        drift = state.drift.get(measured.version)
        return drift is not None and drift.stated >= measured.start

    def _given_up(self, state: PolicyState, start: int) -> bool:
        return state.furthest_drift >= start + 2 * self._width

    def _decide(self, state: PolicyState, measured: Measured) -> None:
        state.labels += measured.labelled
        state.changed += measured.labelled
        drift = state.drift.setdefault(measured.version, VersionDrift())
        facts = drift.facts.get(measured.start)
        drift.decided = measured.start
        for start in [start for start in drift.facts if start <= measured.start]:
            del drift.facts[start]
        if not self._watch(state, measured):
            return
        if measured.expected is None:
            self._first_labels(state, measured)
            return
        if max(facts.count if facts else 0, measured.labelled) < self.task.drift.min_rows:
            return
        verdict = Verdict(
            measured,
            facts,
            drift_vote=facts is not None and facts.votes(self.task),
            performance_vote=measured.votes(self.task),
            sure=measured.sure(self.task),
        )
        state.history = [*state.history, verdict][-self.task.retrain.of_windows :]
        self._vote(state, measured)

    def _first_labels(self, state: PolicyState, measured: Measured) -> None:
        policy = self.task.retrain
        again = state.requested_at is not None
        if state.labels < (policy.new_labels if again else policy.first_labels):
            return
        known = f"{state.labels} {'more ' if again else ''}predictions have their labels"
        reason = f"{measured.version} was never measured before it served, and {known}"
        numbers = {"labels": float(state.labels)}
        if self._may_ask(state, measured, "first_labels"):
            self._request(state, measured, "first_labels", reason, numbers)

    def _watch(self, state: PolicyState, measured: Measured) -> bool:
        """Follow the newest version; False if this window belongs to a version that was replaced."""
        if measured.version != state.version:
            newer = _number(measured.version) > _number(state.version)
            silent = measured.start >= state.last_window + 2 * self._width
            if state.version and not newer and not silent:
                return False
            state.version, state.history = measured.version, []
            self._succeeded(state, measured)
        state.last_window = measured.start
        return True

    def _succeeded(self, state: PolicyState, measured: Measured) -> None:
        """A refreshed model that expects another loss than the one before had tells of a change.

        Its request tried the newest rows alone, so what came of it knows of a change that no vote told of.
        """
        before, state.loss_before = state.loss_before, None
        if before is None or measured.expected is None:
            return
        if abs(measured.expected - before) > APART * before:
            state.follow_ups = self.task.retrain.follow_ups

    def _vote(self, state: PolicyState, measured: Measured) -> None:
        history, needed = state.history, self.task.retrain.votes
        drift_votes = sum(verdict.drift_vote for verdict in history)
        performance_votes = sum(verdict.performance_vote for verdict in history)
        drift = drift_sentence(history, self.task)
        performance = performance_sentence(history, self.task)
        if history[-1].sure:
            performance_votes = needed
        for subject, votes, message in (
            ("drift", drift_votes, drift),
            ("performance", performance_votes, performance),
        ):
            if votes >= needed or votes == 0:
                sentence = f"{measured.version}: {message}"
                self._alert(state, subject, votes > 0, sentence, measured.end, measured)
        reasons = self._other_reasons(state, measured)
        if performance_votes >= needed:
            sentence = f"{performance}; {drift}" if drift_votes else performance
            reasons.insert(0, ("performance", sentence))
        if drift_votes >= needed and not self._stayed(state, measured):
            reasons.insert(0, ("drift", f"{drift}; {measured}"))
        numbers = evidence(history, state.labels)
        for trigger, reason in reasons:  # one that must wait does not hold up the others
            if self._may_ask(state, measured, trigger):
                self._request(state, measured, trigger, reason, numbers)
                return

    def _other_reasons(self, state: PolicyState, measured: Measured) -> list[tuple[str, str]]:
        """Triggers that need no vote, and what they say."""
        reasons = []
        if self._follows_up(state):
            sentence = follow_up_sentence(state.changed_before, state.changed)
            reasons.append(("follow_up", sentence))
        if self._has_grown(state):
            reasons.append(("growth", growth_sentence(state.labels_before, state.labels)))
        if self._is_stale(state, measured):
            reasons.append(("refresh", self._refresh_sentence))
        return reasons

    def _stayed(self, state: PolicyState, measured: Measured) -> bool:
        """True if the version still answers in a window that began after its successor was asked for."""
        asked = state.requested_at
        return asked is not None and state.asked_for == measured.version and measured.start >= asked

    def _follows_up(self, state: PolicyState) -> bool:
        """True if so many labels came since a change that a model of before knows little of it."""
        return (
            state.follow_ups > 0
            and state.version != state.changed_under
            and state.labels >= self.task.retrain.retry_labels
            and state.changed >= FOLLOW_UP_GROWTH * state.changed_before
        )

    def _has_grown(self, state: PolicyState) -> bool:
        """True if there are so many more labels than at the last request that these alone are a reason."""
        growth = self.task.retrain.growth
        return (
            growth is not None
            and state.labels_before > 0
            and state.labels >= growth * state.labels_before
        )

    def _is_stale(self, state: PolicyState, measured: Measured) -> bool:
        """True if much of what the newest training read is not what a training now would read."""
        share = self.task.retrain.refresh
        return (
            share is not None
            and state.requested_at is not None
            and measured.time >= state.requested_at + share * self._memory
        )

    def _newest(self, state: PolicyState, measured: Measured) -> int:
        """Labels of the shortest time that a refresh tries, by their rate since the last request."""
        since = measured.time - (state.requested_at or 0)
        return round(state.labels * min(1.0, REFRESHED[0] * self._memory / max(1, since)))

    def _request(
        self,
        state: PolicyState,
        measured: Measured,
        trigger: str,
        reason: str,
        numbers: dict[str, float],
    ) -> None:
        self._note_change(state, measured, trigger)
        state.labels_before += state.labels
        state.labels, state.requested_at = 0, measured.time
        state.refreshed = trigger == "refresh"
        state.due.append(
            derive(
                RETRAIN_REQUESTS,
                "RetrainRequested",
                *(self.task.name, measured.end),
                # another version's window of the same end may have asked before
                *((trigger, measured.version) if trigger in ("follow_up", "refresh") else ()),
                time=measured.time,
                caused_by=measured.event_id,
                task=self.task.name,
                trigger=trigger,
                reason=reason,
                actor="policy",
                labels_until=measured.time,
                evidence=numbers,
                tried_since=list(state.tried_since) if self.task.retrain.since_change else [],
            )
        )

    def _may_ask(self, state: PolicyState, measured: Measured, trigger: str) -> bool:
        """True if labels enough came since the last request, and its cool-down is over or does not count."""
        policy = self.task.retrain
        soon = trigger == "follow_up" or (
            trigger == "performance" and (state.refreshed or self._stayed(state, measured))
        )
        least = policy.retry_labels if soon else policy.new_labels
        if state.requested_at is None:
            return trigger == "first_labels" or state.labels >= least
        waited = measured.time >= state.requested_at + policy.cooldown_hours * HOUR_MS
        return state.labels >= least and (soon or waited)

    def _note_change(self, state: PolicyState, measured: Measured, trigger: str) -> None:
        """A loss that rose began to change with the first window in sight that says so.

        Unless every window in sight says so since the last request was in vain: then it is the same change.
        A refresh knows of none: if there was one, it lies within the newest part of the training time.
        """
        losing = [verdict for verdict in state.history if verdict.performance_vote]
        same = self._stayed(state, measured) and len(losing) == len(state.history)
        same = same and not state.refreshed
        if trigger in ("drift", "performance") and losing and not same:
            state.changed = sum(verdict.measured.labelled for verdict in losing)
            state.follow_ups = self.task.retrain.follow_ups
            state.changed_under = measured.version
            state.tried_since = [losing[0].measured.start]
        elif trigger == "refresh":
            state.tried_since = [measured.time - round(s * self._memory) for s in REFRESHED]
            state.changed, state.changed_under = self._newest(state, measured), measured.version
            state.follow_ups = 0
        elif trigger == "follow_up":
            state.follow_ups -= 1
        state.loss_before = _mean_loss(state.history) if trigger == "refresh" else None
        state.changed_before = state.changed
        state.asked_for = measured.version

    def _checked(self, state: PolicyState, event: Event) -> None:
        data, version = event.data, event.data["model_version"]
        if data.get("subject", "window") != "window":
            return  # a training set: its TrainingFailed says what is wrong with it
        if data["window_start"] <= state.checked.get(version, -1):
            return
        state.checked[version] = data["window_start"]
        found = "; ".join(data["failures"]) or "every check passed"
        if data.get("quarantined", False):
            found += " (the window does not reach training)"
        message = f"{version}: {found}"
        self._alert(state, "quality", not data["passed"], message, data["window_end"], event)

    def _alert(
        self,
        state: PolicyState,
        subject: str,
        wrong: bool,
        message: str,
        window_end: int,
        cause: Event | Measured,
    ) -> None:
        """Raise an alert when something is `wrong` and was not; resolve it when it no longer is."""
        if wrong == (subject in state.alerts):
            return
        (state.alerts.add if wrong else state.alerts.discard)(subject)
        version = cause.version if isinstance(cause, Measured) else cause.data["model_version"]
        fields: dict[str, Any] = {"task": self.task.name, "subject": subject, "message": message}
        state.due.append(
            derive(
                ALERTS,
                "AlertRaised" if wrong else "AlertResolved",
                *(self.task.name, subject, version, window_end),
                time=cause.time,
                caused_by=cause.event_id if isinstance(cause, Measured) else cause.id,
                **fields,
            )
        )


def _mean_loss(history: Sequence[Verdict]) -> float | None:
    losses = [v.measured.log_loss for v in history if v.measured.log_loss is not None]
    return sum(losses) / len(losses) if losses else None


def _number(version: str) -> int:
    """The n of '<task>-<n>'; -1 for any other name."""
    number = version.rpartition("-")[2]
    return int(number) if number.isdecimal() else -1
