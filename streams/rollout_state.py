"""Rollouts as the log tells them: what is rolled out where, since when, and what people have said.

Three topics are folded side by side, each in its own order, so how they interleave makes no difference.
What a rollout does next is decided elsewhere (`streams.rollout`); here is only what has been decided.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from typing import Any

from schemas.catalogue import DEPLOYMENTS, ROLLOUT_COMMANDS, ROLLOUTS
from schemas.event import Event, derived_id
from streams.deployed import counts
from streams.task import RolloutPolicy

KEPT = 20
"""Past rollouts and reigns of a task that are remembered."""
RUNNING, ABORTED, FINISHED, SUPERSEDED = "running", "aborted", "finished", "superseded"
_OUTCOMES = {"RolloutAborted": ABORTED, "RolloutFinished": FINISHED}
WAITS = "waits_for_approval"
"""Name among the evidence of a step that only waits for a person."""


@dataclass(slots=True)
class Rollout:
    """One challenger on its way; times are event times (ms)."""

    id: str
    """event_id of its RolloutStarted."""
    version: str
    baseline: str
    strategy: str
    policy: str
    """JSON, as it was when the rollout began."""
    started: int
    request_id: str | None
    gates: list[dict[str, Any]]
    step: int = 0
    share: float = 0.0
    since: int = 0
    outcome: str = RUNNING
    waits: bool = False
    """Only an approval is missing."""
    reason: str = ""
    actor: str = ""
    last_id: str = ""
    """event_id of its newest event."""
    shares: list[float] = field(default_factory=list)
    """Share of each step, from step 0 on."""
    times: list[int] = field(default_factory=list)
    """Since when each of them held."""
    ended: int | None = None

    @property
    def rules(self) -> RolloutPolicy:
        return policy_of(self.policy)

    @property
    def promotion_id(self) -> str:
        """event_id of the ModelPromoted that follows the RolloutFinished."""
        return derived_id("ModelPromoted", self.last_id)

    def share_at(self, at_ms: int) -> tuple[float, int] | None:
        """(share, since) of the step that held at `at_ms`; None before the start and after the end."""
        if at_ms < self.started or (self.ended is not None and at_ms >= self.ended):
            return None
        held = [step for step in zip(self.shares, self.times, strict=True) if step[1] <= at_ms]
        return held[-1] if held else None


@dataclass(frozen=True, slots=True)
class Reign:
    """A version that became champion."""

    id: str
    kind: str
    version: str
    previous: str | None
    since: int
    reason: str


@dataclass(frozen=True, slots=True)
class Command:
    """What a person said last about something."""

    id: str
    command: str
    actor: str
    reason: str
    time: int


@dataclass(slots=True)
class TaskRollouts:
    """All there is to know of one task."""

    active: Rollout | None = None
    past: list[Rollout] = field(default_factory=list)
    reigns: list[Reign] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)
    """Ids of a policy's decisions that came too late: they bind nobody."""
    frozen: Command | None = None
    orders: dict[str, dict[str, Command]] = field(default_factory=dict)
    """rollout id -> 'hold', 'approve', 'reject' or 'abort' -> the command in force."""

    @property
    def champion(self) -> str | None:
        return self.reigns[-1].version if self.reigns else None

    def order(self, rollout: Rollout, command: str) -> Command | None:
        return self.orders.get(rollout.id, {}).get(command)

    def unsettled(self) -> Rollout | None:
        """The newest rollout that finished, while its promotion is not in the log yet and still due."""
        done = next((one for one in reversed(self.past) if one.outcome == FINISHED), None)
        if done is None or self.champion != done.baseline or self.replaced_since(done):
            return None
        known = {*self.overtaken, *(reign.id for reign in self.reigns)}
        return None if done.promotion_id in known else done

    def replaced_since(self, rollout: Rollout) -> bool:
        """Whether somebody became champion after the rollout began, even if its baseline came back."""
        if not self.reigns:
            return False
        since = self.reigns[-1].since
        before = any(reign.version == rollout.baseline for reign in self.reigns[:-1])
        return since > rollout.started or (since == rollout.started and before)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Who takes part in answering besides the champion."""

    id: str
    """event_id of the rollout or, for a watch, of the promotion."""
    step: int
    baseline: str
    """The champion this holds for."""
    version: str
    share: float
    """Of the requests that `version` answers."""
    shadow: bool
    """Whether `version` scores, unseen, what the champion answers."""
    sticky_by: str | None
    until: int | None = None
    """Event time (ms) from which it does not count any more."""

    @property
    def route(self) -> str:
        return f"{self.id}/{self.step}"


class Rollouts:
    """Fold: task -> TaskRollouts, of every task in the log."""

    name = "rollouts"
    topics = (ROLLOUTS, ROLLOUT_COMMANDS, DEPLOYMENTS)

    def initial(self) -> dict[str, TaskRollouts]:
        return {}

    def apply(
        self, state: dict[str, TaskRollouts], batch: Sequence[Event]
    ) -> dict[str, TaskRollouts]:
        for event in batch:
            apply_to(state.setdefault(event.data["task"], TaskRollouts()), event)
        return state


def apply_to(state: TaskRollouts, event: Event) -> None:
    """One event of the three topics, about this task."""
    if event.topic == ROLLOUTS:
        _rolled(state, event)
    elif event.topic == ROLLOUT_COMMANDS:
        _commanded(state, event)
    elif event.topic == DEPLOYMENTS and event.type != "PromotionRejected":
        _installed(state, event)


def traffic(state: TaskRollouts, policy: RolloutPolicy | None = None) -> Traffic | None:
    """What serving does besides asking the champion; `policy`: the task's own, for the watch."""
    last = state.unsettled()
    if last is not None:  # everybody stays where they were until the promotion is there
        share, sticky = 1.0, last.rules.sticky_by
        return Traffic(last.id, last.step, last.baseline, last.version, share, False, sticky)
    now = state.active
    if now is not None and now.baseline == state.champion:
        shadow = now.strategy == "shadow" and now.step > 0
        sticky = now.rules.sticky_by
        return Traffic(now.id, now.step, now.baseline, now.version, now.share, shadow, sticky)
    reign = state.reigns[-1] if state.reigns else None
    if now is None and reign and policy and policy.shadow_previous and watched(reign):
        until = reign.since + policy.watch_ms
        assert reign.previous is not None
        return Traffic(reign.id, 0, reign.version, reign.previous, 0.0, True, None, until)
    return None


def rollout_at(state: TaskRollouts, at_ms: int) -> tuple[Rollout, float, int] | None:
    """(rollout, share, since) of what was on its way at event time `at_ms`."""
    for rollout in reversed([*state.past, *([state.active] if state.active else [])]):
        held = rollout.share_at(at_ms)
        if held is not None:
            return rollout, *held
    return None


def watched(reign: Reign) -> bool:
    """Whether there is a version to go back to."""
    return reign.kind == "ModelPromoted" and reign.previous not in (None, reign.version)


@cache
def policy_of(text: str) -> RolloutPolicy:
    """The policy in an event; fields that a newer program wrote are left out."""
    known = {spec.name for spec in fields(RolloutPolicy)}
    values: Mapping[str, Any] = json.loads(text)
    given = {name: value for name, value in values.items() if name in known}
    if "steps" in given:
        given["steps"] = tuple(given["steps"])
    return RolloutPolicy(**given)


def policy_text(policy: RolloutPolicy) -> str:
    """As JSON, for RolloutStarted."""
    values = {spec.name: getattr(policy, spec.name) for spec in fields(policy)}
    return json.dumps(values, sort_keys=True)


def decision_id(rollout: Rollout) -> str:
    """Of the next event of a rollout: one id whatever it says, so the first in the log is the decision."""
    return _decision_id(rollout.id, rollout.step + 1)


@lru_cache(maxsize=64)
def _decision_id(rollout: str, step: int) -> str:
    return derived_id("RolloutDecided", rollout, step)


@lru_cache(maxsize=64)
def return_id(promotion: str) -> str:
    """Of the ModelRolledBack that takes a promotion back."""
    return derived_id("ModelRolledBack", promotion, "watch")


def _rolled(state: TaskRollouts, event: Event) -> None:
    data = event.data
    if event.type == "RolloutStarted":
        if state.active is not None:
            _close(state, SUPERSEDED, f"{data['model_version']} came after it", event.time)
        state.active = Rollout(
            id=event.id,
            version=data["model_version"],
            baseline=data["previous_version"],
            strategy=data["strategy"],
            policy=data["policy"],
            started=event.time,
            request_id=data.get("request_id"),
            gates=[dict(gate) for gate in data.get("gates", ())],
            since=event.time,
            reason=data["reason"],
            actor=data["actor"],
            last_id=event.id,
            shares=[0.0],
            times=[event.time],
        )
        return
    now = state.active
    if now is None or now.id != data["rollout_id"] or data["step"] != now.step + 1:
        return  # it is over, or said already
    now.step, now.share = data["step"], data["share"]
    now.shares.append(now.share)
    now.since = max(now.since, event.time)
    now.times.append(now.since)
    now.waits = WAITS in data["evidence"]
    now.actor, now.last_id = data["actor"], event.id
    now.reason = data["reason"]
    if event.type in _OUTCOMES:
        _close(state, _OUTCOMES[event.type], data["reason"], event.time)


def _close(state: TaskRollouts, outcome: str, reason: str, time: int) -> None:
    assert state.active is not None
    state.active.outcome, state.active.reason = outcome, reason
    state.active.ended = max(state.active.since, time)
    state.past.append(state.active)
    del state.past[:-KEPT]
    state.active = None


def _commanded(state: TaskRollouts, event: Event) -> None:
    data = event.data
    said = Command(event.id, data["command"], data["actor"], data["reason"], event.time)
    if said.command in ("freeze", "unfreeze"):
        state.frozen = said if said.command == "freeze" else None
    elif data["rollout_id"]:
        orders = state.orders.setdefault(data["rollout_id"], {})
        if said.command == "resume":
            orders.pop("hold", None)
        else:
            orders.setdefault(said.command, said)


def _installed(state: TaskRollouts, event: Event) -> None:
    data = event.data
    previous = state.champion
    if not counts(data["actor"], data.get("previous_version"), previous):
        state.overtaken.append(event.id)
        del state.overtaken[:-KEPT]
        return
    since = max(event.time, state.reigns[-1].since) if len(state.reigns) > 1 else event.time
    reign = Reign(event.id, event.type, data["model_version"], previous, since, data["reason"])
    state.reigns.append(reign)
    del state.reigns[:-KEPT]
