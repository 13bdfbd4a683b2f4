"""The model registry: a fold over what was asked, cut, trained, registered and decided."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import (
    DEPLOYMENTS,
    MODEL_VERSIONS,
    QUALITY_REPORTS,
    RETRAIN_REQUESTS,
    ROLLOUTS,
    SNAPSHOTS,
    TRAINING_RUNS,
    TRIALS,
)
from schemas.event import Event
from streams.deployed import counts

PROMOTED, ROLLED_BACK, REJECTED = "ModelPromoted", "ModelRolledBack", "PromotionRejected"
FAILED = "TrainingFailed"
ROLLED_OUT = "RolloutStarted"
TERMINAL = frozenset((PROMOTED, REJECTED, FAILED, ROLLED_OUT))
"""Each request ends in one of these, once."""


@dataclass(frozen=True, slots=True)
class Version:
    """A registered model version; `path` is relative to the artifact store, times are event times (ms)."""

    version: str
    task: str
    time: int
    event_id: str
    request_id: str
    parent: str | None
    snapshot: str | None
    golden: str | None
    artifact: str
    path: str
    bytes: int
    recipe: str
    parameters: str
    seed: int
    features: tuple[str, ...]
    metrics: Mapping[str, float]
    environment: Mapping[str, str]
    reference_count: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about which version answers. `kind`: ModelPromoted, ModelRolledBack or PromotionRejected.

    `since` is its event time, or the time of the decision before it if that was later: decisions count
    in the order of the log. The first one binds nobody: no event of the task had told the time yet.
    """

    kind: str
    task: str
    version: str
    previous: str | None
    time: int
    since: int
    reason: str
    actor: str
    event_id: str
    request_id: str | None
    gates: tuple[Mapping[str, Any], ...]
    evidence: tuple[Mapping[str, Any], ...] = ()
    """What was measured beyond the gates (Measured records)."""
    overtaken: bool = False
    """A policy decided about a champion that had been replaced already: it binds nobody."""

    @property
    def installs(self) -> bool:
        """Whether `version` answers from then on."""
        return self.kind != REJECTED and not self.overtaken


@dataclass(slots=True)
class Request:
    """What the log holds about one retrain request: its own fields, and the events of its steps by id."""

    asked: Mapping[str, Any] | None = None
    steps: dict[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """event id -> (type, data), in the order of arrival."""

    def step(self, type_: str, **fields: Any) -> Mapping[str, Any] | None:
        """The first event of this type with these fields."""
        for found, data in self.steps.values():
            if found == type_ and all(data.get(name) == value for name, value in fields.items()):
                return data
        return None

    def all_of(self, type_: str, **fields: Any) -> list[Mapping[str, Any]]:
        """Every event of this type with these fields, in the order of arrival."""
        return [
            data
            for found, data in self.steps.values()
            if found == type_ and all(data.get(name) == value for name, value in fields.items())
        ]

    @property
    def ended(self) -> tuple[str, Mapping[str, Any]] | None:
        """(type, data) of the terminal event."""
        return next((step for step in self.steps.values() if step[0] in TERMINAL), None)


@dataclass(slots=True)
class RegistryState:
    """All tasks together."""

    versions: dict[str, Version] = field(default_factory=dict)
    decisions: dict[str, list[Decision]] = field(default_factory=dict)
    """task -> decisions in the order of the log."""
    requests: dict[str, Request] = field(default_factory=dict)
    golden: dict[str, dict[str, Any]] = field(default_factory=dict)
    """task -> its golden SnapshotTaken: the first, or the newest that replaced the one before it."""
    golden_sets: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """task -> all that were ever its golden set, oldest first."""


class Registry:
    """Fold: see the module. Which topic's events come first makes no difference."""

    name = "registry"
    topics = (
        *(
            MODEL_VERSIONS,
            DEPLOYMENTS,
            TRAINING_RUNS,
            TRIALS,
            SNAPSHOTS,
            RETRAIN_REQUESTS,
            ROLLOUTS,
        ),
        QUALITY_REPORTS,  # of training sets: these name their request
    )

    def initial(self) -> RegistryState:
        return RegistryState()

    def apply(self, state: RegistryState, batch: Sequence[Event]) -> RegistryState:
        for event in batch:
            data = event.data
            if event.type == "RetrainRequested":
                request = state.requests.setdefault(event.id, Request())
                request.asked = request.asked or dict(data)
                continue
            if data.get("request_id"):
                request = state.requests.setdefault(data["request_id"], Request())
                # The reference is large, and belongs to the detectors.
                kept = {name: value for name, value in data.items() if name != "reference"}
                request.steps.setdefault(event.id, (event.type, kept))
            if event.type == "ModelRegistered":
                state.versions.setdefault(data["model_version"], _version(event))
            elif event.topic == DEPLOYMENTS:
                _decide(state.decisions.setdefault(data["task"], []), event)
            elif event.type == "SnapshotTaken" and data.get("purpose") == "golden":
                _golden(state, dict(data))
        return state


def _golden(state: RegistryState, taken: dict[str, Any]) -> None:
    """A set counts if it is the first, or names the one that counted so far."""
    known = state.golden.get(taken["task"])
    if known is None or taken.get("replaces") == known["snapshot"]:
        state.golden[taken["task"]] = taken
        state.golden_sets.setdefault(taken["task"], []).append(taken)


def champion(state: RegistryState, task: str, at_ms: int | None = None) -> Decision | None:
    """The decision that made the version that answers for `task` now, or at event time `at_ms`.

    The first version counts from the beginning of time: nothing answered before it.
    """
    installed = [d for d in state.decisions.get(task, ()) if d.installs]
    for decision in reversed(installed):
        if at_ms is None or decision.since <= at_ms:
            return decision
    return installed[0] if installed else None


def version(state: RegistryState, name: str) -> Version | None:
    return state.versions.get(name)


def versions(state: RegistryState, task: str | None = None) -> list[Version]:
    """Registered versions, oldest first."""
    found = [v for v in state.versions.values() if task is None or v.task == task]
    return sorted(found, key=lambda v: (v.task, _number(v.version), v.version))


def decisions(state: RegistryState, task: str | None = None) -> Iterator[Decision]:
    """Decisions in the order of the log, task by task."""
    for name in sorted(state.decisions):
        if task in (None, name):
            yield from state.decisions[name]


def next_version(state: RegistryState, task: str) -> str:
    """`<task>-<number of versions so far>`."""
    return f"{task}-{len(versions(state, task))}"


def before(state: RegistryState, task: str) -> str | None:
    """The version that answered before the champion, if it differs: where a rollback leads."""
    now = champion(state, task)
    for decision in reversed(state.decisions.get(task, ())):
        if now and decision.installs and decision.version != now.version:
            return decision.version
    return None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a version was live: the decision, the version, and the request that led to its training."""

    decision: Decision
    version: Version | None
    asked: Mapping[str, Any] | None
    since: int | None
    """Event time (ms); None for a task's first version, which counts from the beginning."""
    until: int | None
    """Event time (ms) of the next decision that installed a version; None if it still answers."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        asked = self.asked or {}
        return {
            "task": self.decision.task,
            "model_version": self.decision.version,
            "previous_version": self.decision.previous,
            "since": self.since,
            "until": self.until,
            "decision": self.decision.kind,
            "reason": self.decision.reason,
            "actor": self.decision.actor,
            "event_id": self.decision.event_id,
            "gates": [dict(gate) for gate in self.decision.gates],
            "request_id": self.decision.request_id,
            "trigger": asked.get("trigger"),
            "request_reason": asked.get("reason"),
            "evidence": dict(asked.get("evidence", {})),
            "metrics": dict(self.version.metrics) if self.version else {},
            "artifact": self.version.artifact if self.version else None,
            "snapshot": self.version.snapshot if self.version else None,
        }


def explain(state: RegistryState, task: str, at_ms: int | None = None) -> Explanation | None:
    """Which version answered at event time `at_ms` (default: now), and why; None if none did."""
    decision = champion(state, task, at_ms)
    if decision is None:
        return None
    log = state.decisions[task]
    installed = [other for other in log if other.installs]
    place = installed.index(decision)
    since = decision.since if place else None
    until = installed[place + 1].since if place + 1 < len(installed) else None
    asked = state.requests.get(decision.request_id or "", Request()).asked
    return Explanation(decision, state.versions.get(decision.version), asked, since, until)


def _version(event: Event) -> Version:
    data = event.data
    return Version(
        version=data["model_version"],
        task=data["task"],
        time=event.time,
        event_id=event.id,
        request_id=data["request_id"],
        parent=data.get("parent"),
        snapshot=data.get("snapshot"),
        golden=data.get("golden"),
        artifact=data["artifact"],
        path=data["path"],
        bytes=data["bytes"],
        recipe=data["recipe"],
        parameters=data["parameters"],
        seed=data["seed"],
        features=tuple(data["features"]),
        metrics=dict(data.get("metrics", {})),
        environment=dict(data.get("environment", {})),
        reference_count=data.get("reference_count", 0),
    )


def _decide(log: list[Decision], event: Event) -> None:
    if any(known.event_id == event.id for known in log):
        return
    data = event.data
    now = next((known.version for known in reversed(log) if known.installs), None)
    log.append(
        Decision(
            kind=event.type,
            task=data["task"],
            version=data["model_version"],
            previous=data.get("previous_version"),
            time=event.time,
            since=max(event.time, log[-1].since if len(log) > 1 else event.time),
            reason=data["reason"],
            actor=data["actor"],
            event_id=event.id,
            request_id=data.get("request_id"),
            gates=tuple(dict(gate) for gate in data.get("gates", ())),
            evidence=tuple(dict(measure) for measure in data.get("evidence", ())),
            overtaken=not counts(data["actor"], data.get("previous_version"), now),
        )
    )


def _number(name: str) -> int:
    """The number in `<task>-<number>` or `<task>-<number>-<method>`."""
    tail = name.partition("-")[2].partition("-")[0]
    return int(tail) if tail.isdigit() else -1
