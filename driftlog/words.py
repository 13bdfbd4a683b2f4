"""Events in words: one line for people, the same wherever events are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.event import Event

Data = Mapping[str, Any]


def moment(ms: int) -> str:
    """`2013-02-01 12:00` of an event time in ms (UTC)."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def line(event: Event) -> str:
    """When, where, what: `2013-02-01 12:00  flights.labels[2]@81  LabelObserved  ...`."""
    where = str(event.at) if event.at else event.topic
    return f"{moment(event.time)}  {where:<34} {event.type:<19} {describe(event)}".rstrip()


def describe(event: Event) -> str:
    """What it says, without its envelope."""
    words = _WORDS.get(event.type, _fields)
    try:
        return words(event.data)
    except (KeyError, TypeError, ValueError):  # written by a newer or a foreign producer
        return _fields(event.data)


def _fields(data: Data) -> str:
    shown = []
    for name, value in data.items():
        if name in ("event_id", "event_time", "caused_by") or value is None:
            continue
        shown.append(f"{name}={_value(value)}")
    return " ".join(shown)


def _value(value: object) -> str:
    if isinstance(value, dict | list):
        return f"({len(value)})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _prediction(data: Data) -> str:
    return f"{data['model_version']} says {data['score']:.3f} -> {data['label']}"


def _label(data: Data) -> str:
    return f"{data['label']} for {data['prediction_id']}"


def _observed(data: Data) -> str:
    values = {name: value for name, value in data["values"].items() if value is not None}
    return f"{data['entity']} {data['key']}: " + _fields(values)


def _sketch(data: Data) -> str:
    return (
        f"{data['model_version']} {data['kind']} from {moment(data['window_start'])}:"
        f" {data['count']} rows, {len(data['columns'])} columns"
    )


def _drift(data: Data) -> str:
    mark = "DRIFTED " if data["drifted"] else ""
    return (
        f"{mark}{data['feature']} of {data['model_version']}: PSI {data['psi']:.3f}"
        f" (threshold {data['threshold']:.3f}, {data['count']} rows)"
    )


def _performance(data: Data) -> str:
    loss = "no labels" if data["log_loss"] is None else f"log-loss {data['log_loss']:.4f}"
    auc = "" if data["auc"] is None else f", AUC {data['auc']:.3f}"
    mark = "DEGRADED " if data["degraded"] or data["change_detected"] else ""
    return f"{mark}{data['model_version']}: {loss}{auc} on {data['labelled']} labels"


def _quality(data: Data) -> str:
    verdict = "passed" if data["passed"] else f"FAILED: {len(data['failures'])} checks"
    return f"{data['model_version']}: {verdict} on {data['count']} rows"


def _request(data: Data) -> str:
    return f"{data['actor']} asks for a new model of {data['task']} ({data['trigger']}): {data['reason']}"


def _snapshot(data: Data) -> str:
    return (
        f"{data['purpose']}: {data['rows']} rows of {data['task']}, sha256 {data['snapshot'][:12]}"
    )


def _registered(data: Data) -> str:
    return f"{data['model_version']} ({data['recipe']}), artifact {data['artifact'][:12]}"


def _trial(data: Data) -> str:
    found = (
        f"log-loss {data['value']:.4f}"
        if data["value"] is not None
        else f"FAILED: {data['reason']}"
    )
    tried = ", ".join(f"{name} {_value(v)}" for name, v in json.loads(data["parameters"]).items())
    return f"{data['model_version']} trial {data['trial'] + 1} of {data['trials']}: {found} with {tried}"


def _promoted(data: Data) -> str:
    before = data["previous_version"] or "nothing"
    return f"{data['model_version']} replaces {before}: {data['reason']}"


def _rejected(data: Data) -> str:
    return f"{data['model_version']} stays out: {data['reason']}"


def _alert(data: Data) -> str:
    return f"{data['subject']}: {data['message']}"


def _fault(data: Data) -> str:
    return f"{data['kind']} {data['target']} by {data['actor']}"


def _hash(data: Data) -> str:
    return f"{data['fold']} {data['sha256'][:16]} after {data['events']} events"


_WORDS: dict[str, Callable[[Data], str]] = {
    "PredictionMade": _prediction,
    "LabelObserved": _label,
    "FeatureObserved": _observed,
    "SketchTaken": _sketch,
    "DriftScored": _drift,
    "PerformanceMeasured": _performance,
    "QualityChecked": _quality,
    "RetrainRequested": _request,
    "SnapshotTaken": _snapshot,
    "TrialFinished": _trial,
    "ModelRegistered": _registered,
    "ModelPromoted": _promoted,
    "ModelRolledBack": _promoted,
    "PromotionRejected": _rejected,
    "AlertRaised": _alert,
    "AlertResolved": _alert,
    "FaultInjected": _fault,
    "StateHashed": _hash,
}
