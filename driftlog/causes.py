"""What led to an event: `caused_by`, and what its own fields point to (pure).

`caused_by` names one event; most rest on more. A drift score rests on the sketches of every partition
and on its model's reference, a request on each window that voted, a snapshot on its rows. The rules here
say which, from the event's fields alone. An unknown type needs no rule: ids, versions and snapshots
among its fields are followed by their names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from schemas.catalogue import (
    DEPLOYMENTS,
    DRIFT_SCORES,
    MODEL_VERSIONS,
    PERFORMANCE_SCORES,
    SKETCHES,
    SNAPSHOTS,
    features_topic,
    predictions_topic,
)
from schemas.event import Event
from streams.task import HOUR_MS, Observed, Rate, Task


@dataclass(frozen=True, slots=True)
class Wanted:
    """Events of `topic` whose fields equal `equals`, with event times from `since` to `until` (ms, both in).

    `newest`: only so many, the last by event time.
    """

    topic: str
    type: str
    equals: Mapping[str, Any] = field(default_factory=dict)
    since: int | None = None
    until: int | None = None
    newest: int | None = None


class Events(Protocol):
    """Where events are looked up."""

    def by_id(self, event_id: str) -> Event | None:
        """The event, or None if there is none."""

    def find(self, wanted: Wanted) -> list[Event]:
        """In the order of event time; the first record of each id."""

    def count(self, wanted: Wanted) -> int:
        """How many different events `find` would give."""

    def of_request(self, request_id: str) -> list[Event]:
        """Every event with this `request_id`, of whatever type, in the order of the log's clock."""


@dataclass(frozen=True, slots=True)
class Link:
    """Causes in one role. `told` is for causes that are no single events: rows, rates.

    `further`: whether to go on from these to what led to them.
    """

    role: str
    events: tuple[Event, ...] = ()
    told: str = ""
    further: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What the rules may ask: the events, and the tasks of this instance by name."""

    events: Events
    tasks: Mapping[str, Task]

    def task(self, event: Event) -> Task | None:
        name = event.data.get("task") or event.topic.rpartition(".")[0]
        return self.tasks.get(str(name))


Rule = Callable[[Event, Known], Iterator[Link]]


def links(event: Event, known: Known) -> list[Link]:
    """Everything that led to `event`, `caused_by` first."""
    found: list[Link] = []
    cause = event.data.get("caused_by")
    if cause:
        before = known.events.by_id(str(cause))
        if before is None:
            found.append(Link("caused by", told=f"event {cause}, which the log does not hold"))
        else:
            role = "closed by" if event.type == "SketchTaken" else "caused by"
            found.append(Link(role, (before,), further=before.type not in _LEAVES))
    try:
        found += list(_RULES.get(event.type, _by_names)(event, known))
    except (KeyError, TypeError):  # written by a newer or a foreign producer
        found += _by_names(event, known)
    return [link for link in found if link.events or link.told]


def _sketch(event: Event, known: Known) -> Iterator[Link]:
    data = event.data
    wanted = Wanted(
        predictions_topic(data["task"]),
        "PredictionMade",
        {"model_version": data["model_version"]},
        since=data["window_start"],
        until=data["window_end"] - 1,
    )
    where = "all partitions" if data["partition"] < 0 else f"partition {data['partition']}"
    told = (
        f"{data['count']:,} predictions of {where};"
        f" the log holds {known.events.count(wanted):,} of {data['model_version']} in the window"
    )
    yield Link("rows", told=told)


def _drift(event: Event, known: Known) -> Iterator[Link]:
    yield _sketches(event, known, "inputs")
    yield _version(event, known, "compared with the reference of")


def _performance(event: Event, known: Known) -> Iterator[Link]:
    yield _sketches(event, known, "outcomes")
    yield _version(event, known, "expected by")


def _sketches(event: Event, known: Known, kind: str) -> Link:
    """The statements that it summed up: the newest of each partition when it was made."""
    data = event.data
    equals = {
        "task": data["task"],
        "model_version": data["model_version"],
        "kind": kind,
        "window_start": data["window_start"],
    }
    newest: dict[int, Event] = {}
    for sketch in known.events.find(Wanted(SKETCHES, "SketchTaken", equals)):
        partition = sketch.data["partition"]
        kept = newest.get(partition)
        if kept is None or sketch.data["revision"] > kept.data["revision"]:
            newest[partition] = sketch
    if kind == "inputs" and sum(s.data["revision"] for s in newest.values()) != data["revision"]:
        role = "sketches (restated since)"
    else:
        role = "sketches"
    own = data.get("caused_by")
    others = tuple(sketch for _, sketch in sorted(newest.items()) if sketch.id != own)
    return Link(role, others, further=True)


def _version(event: Event, known: Known, role: str) -> Link:
    found = _registered(str(event.data["model_version"]), known)
    return Link(role, found)


def _registered(version: str, known: Known) -> tuple[Event, ...]:
    wanted = Wanted(MODEL_VERSIONS, "ModelRegistered", {"model_version": version})
    return tuple(known.events.find(wanted)[:1])


def _request(event: Event, known: Known) -> Iterator[Link]:
    """The windows that voted: the last ones of the watched version, and the columns that drifted there."""
    measured = known.events.by_id(str(event.data.get("caused_by") or ""))
    if measured is None or measured.type != "PerformanceMeasured":
        return
    data = measured.data
    windows = int(event.data["evidence"].get("windows", 0))
    about = {"task": data["task"], "model_version": data["model_version"]}
    task = known.task(event)
    least = task.drift.min_rows if task else 0
    judged: dict[int, Event] = {}
    for one in known.events.find(
        Wanted(PERFORMANCE_SCORES, "PerformanceMeasured", about, until=measured.time)
    ):
        if one.data["window_start"] <= data["window_start"] and one.data["count"] >= least:
            judged.setdefault(one.data["window_start"], one)
    voting = sorted(judged)[-windows:] if windows else []
    yield Link("window", tuple(judged[s] for s in voting if judged[s].id != measured.id))
    for start in voting:
        wanted = Wanted(
            DRIFT_SCORES, "DriftScored", {**about, "window_start": start, "drifted": True}
        )
        first: dict[str, Event] = {}
        for score in known.events.find(wanted):
            if score.data["feature"] != "label":
                first.setdefault(score.data["feature"], score)
        worst = sorted(first.values(), key=lambda s: s.data["threshold"] - s.data["psi"])
        yield Link("drifted in the window", tuple(worst), further=True)


def _snapshot(event: Event, known: Known) -> Iterator[Link]:  # noqa: ARG001
    data = event.data
    ends = sum(at["offset"] for at in data["offsets"])
    told = f"{data['rows']:,} labelled predictions out of the first {ends:,} records of the log"
    yield Link("rows", told=told)


def _model(event: Event, known: Known) -> Iterator[Link]:
    golden = event.data.get("golden")
    if golden:
        yield Link("judged on", _taken(golden, event.data["task"], known))
    if event.data.get("parent"):
        yield Link("follows", _registered(event.data["parent"], known))


def _taken(sha256: str, task: str, known: Known) -> tuple[Event, ...]:
    wanted = Wanted(SNAPSHOTS, "SnapshotTaken", {"task": task, "snapshot": sha256})
    return tuple(known.events.find(wanted)[:1])


def _decision(event: Event, known: Known) -> Iterator[Link]:
    previous = event.data.get("previous_version")
    if previous:
        yield Link("instead of", _registered(previous, known))
    request = event.data.get("request_id")
    if request:
        others = (e for e in known.events.of_request(request) if e.id != event.id)
        yield Link("of the same request", tuple(others))


def _prediction(event: Event, known: Known) -> Iterator[Link]:
    version, time = str(event.data["model_version"]), event.time
    yield Link("answered by", _registered(version, known))
    decisions = known.events.find(Wanted(DEPLOYMENTS, "", {"model_version": version}))
    installing = [d for d in decisions if d.type != "PromotionRejected"]
    # A task's first decision binds nobody: its time is that of the clock, not of the domain.
    before = [d for d in installing if d.time <= time] or installing
    yield Link("which served since", tuple(before[-1:]), further=True)
    task = known.task(event)
    for feature in task.features if task else ():
        value = event.data["features"].get(feature.name)
        if isinstance(feature, Rate):
            by = ", ".join(f"{name}={event.data['features'].get(name)}" for name in feature.by)
            since = _number(value)
            told = f"{feature.name} = {since}: labels of the {feature.hours} h before"
            yield Link("rate", told=f"{told}, {f'by {by}' if by else 'over all'}")
        elif isinstance(feature, Observed):
            key = str(event.data["features"].get(feature.by))
            oldest = time - feature.max_age_hours * HOUR_MS
            wanted = Wanted(
                features_topic(task.name if task else ""),
                "FeatureObserved",
                {"entity": feature.by, "key": key},
                since=oldest,
                until=time,
                newest=1,
            )
            seen = tuple(known.events.find(wanted))
            yield Link(f"{feature.name} = {_number(value)} as observed", seen)


def _label(event: Event, known: Known) -> Iterator[Link]:
    about = known.events.by_id(str(event.data["prediction_id"]))
    if about is None:
        told = f"prediction {event.data['prediction_id']}, which the log does not hold"
        yield Link("about", told=told)
    else:
        yield Link("about", (about,), further=True)


def _by_names(event: Event, known: Known) -> Iterator[Link]:
    """What fields point to by their names: any `..._id`, `model_version`, `snapshot`."""
    for name, value in event.data.items():
        if name == "event_id" or not isinstance(value, str) or not value:
            continue
        if value == event.data.get("caused_by"):
            continue
        if name == "request_id" or not (name.endswith("_id") or name == "of"):
            continue
        found = known.events.by_id(value)
        if found is not None:
            yield Link(name.removesuffix("_id").replace("_", " "), (found,))
    if event.data.get("model_version") and event.type not in _OF_A_TRAINING:
        yield Link("about", _registered(str(event.data["model_version"]), known))
    if event.data.get("snapshot") and event.data.get("task"):
        taken = _taken(str(event.data["snapshot"]), str(event.data["task"]), known)
        yield Link("rows of", taken, further=True)


def _nothing_more(event: Event, known: Known) -> Iterator[Link]:  # noqa: ARG001
    return iter(())


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


_LEAVES = frozenset(("PredictionMade", "LabelObserved", "FeatureObserved"))
"""What came from outside: `caused_by` ends here. (As the event that is asked about, it is explained.)"""
_OF_A_TRAINING = frozenset(("TrainingStarted", "TrainingFinished", "TrainingFailed"))
_RULES: dict[str, Rule] = {
    "SketchTaken": _sketch,
    "DriftScored": _drift,
    "QualityChecked": _drift,
    "PerformanceMeasured": _performance,
    "RetrainRequested": _request,
    "SnapshotTaken": _snapshot,
    "ModelRegistered": _model,
    "ModelPromoted": _decision,
    "PromotionRejected": _decision,
    "ModelRolledBack": _decision,
    "PredictionMade": _prediction,
    "LabelObserved": _label,
    "FeatureObserved": _nothing_more,
    "TrainingStarted": _nothing_more,
    "TrainingFinished": _nothing_more,
    "TrainingFailed": _nothing_more,
}
