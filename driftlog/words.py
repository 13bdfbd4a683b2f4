"""Events in words: one line for people, the same wherever events are shown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from schemas.event import Event
from streams.personal import PERSON, sealed_fields

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


def personal(data: Data) -> str:
    """What a prediction says about somebody, without the keys: `person 3f2a9c01, email [encrypted]`."""
    if data.get(PERSON) is None:
        return "nobody"
    given = [name for name, value in sealed_fields(data).items() if value is not None]
    return ", ".join([f"person {data[PERSON][:8]}", *(f"{name} [encrypted]" for name in given)])


def _corrected(data: Data) -> str:
    was = f"{data['model_version']} said {data['logged_score']:.3f} -> {data['logged_label']}"
    return f"{data['by']} says {data['score']:.3f} -> {data['label']}; {was}: {data['reason']}"


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


def _estimated(data: Data) -> str:
    band = f"between {data['log_loss_low']:.4f} and {data['log_loss_high']:.4f}"
    auc = "" if data["auc"] is None else f", AUC {data['auc']:.3f}"
    return (
        f"{data['model_version']}: log-loss {data['log_loss']:.4f} without labels ({band}){auc}"
        f" on {data['count']} rows"
    )


def _reconciled(data: Data) -> str:
    mark = "" if data["within"] else "OFF "
    told = [
        f"{m['name'].replace('_', '-')} {m['realised']:.4f}, estimated {m['estimate']:.4f}"
        for m in data["measures"]
    ]
    return f"{mark}{data['model_version']}: {'; '.join(told)} ({data['labelled']} labels)"


def _labels_wanted(data: Data) -> str:
    return (
        f"{len(data['predictions'])} of {data['candidates']} predictions of {data['model_version']}"
        f" ({data['strategy']}): {data['reason']}"
    )


def _quality(data: Data) -> str:
    verdict = "passed" if data["passed"] else f"FAILED: {'; '.join(data['failures'])}"
    if data.get("quarantined", False):
        verdict = f"QUARANTINED {verdict}"
    return f"{data['model_version']}: {verdict} on {data['count']} rows"


def _quarantine(data: Data) -> str:
    start, end = moment(data["from_time"]), moment(data["to_time"])
    return f"{data['task']} from {start} to {end} by {data['actor']}: {data['reason']}"


def _request(data: Data) -> str:
    return f"{data['actor']} asks for a new model of {data['task']} ({data['trigger']}): {data['reason']}"


def _snapshot(data: Data) -> str:
    return (
        f"{data['purpose']}: {data['rows']} rows of {data['task']}, sha256 {data['snapshot'][:12]}"
    )


def _started(data: Data) -> str:
    made = f"{data['model_version']} by {data['recipe']}, seed {data['seed']}"
    return f"{made}, from snapshot {data['snapshot'][:12]}"


def _finished(data: Data) -> str:
    return f"{data['model_version']} in {data['duration_ms'] / 1000:.1f} s"


def _failed(data: Data) -> str:
    return f"no {data['model_version']}: {data['reason']}"


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


def _rollout(data: Data) -> str:
    return (
        f"{data['strategy']} of {data['model_version']} against {data['previous_version']}:"
        f" {data['reason']}"
    )


def _advanced(data: Data) -> str:
    return f"{data['model_version']} answers {data['share']:.0%}: {data['reason']}"


def _aborted(data: Data) -> str:
    return f"{data['model_version']} is out: {data['reason']}"


def _won(data: Data) -> str:
    return f"{data['model_version']} is to be champion: {data['reason']}"


def _commanded(data: Data) -> str:
    what = "all rollouts of" if data["rollout_id"] is None else "the rollout of"
    return f"{data['actor']}: {data['command']} {what} {data['task']}: {data['reason']}"


def _shadow(data: Data) -> str:
    score = "nothing" if data["score"] is None else f"{data['score']:.3f}"
    return (
        f"{data['model_version']} would have said {score},"
        f" {data['answered_by']} said {data['answered_score']:.3f}"
    )


def _issued(data: Data) -> str:
    until = f" until {moment(data['expires'])}" if data.get("expires") else ""
    new = " (rotated)" if data.get("replaces") else ""
    return f"{data['name']}{new} may {', '.join(data['scopes'])}{until}: {data['reason']}"


def _revoked(data: Data) -> str:
    return f"{data['name']} from {moment(data['from_time'])}: {data['reason']}"


def _refused(data: Data) -> str:
    task = f" at {data['task']}" if data["task"] else ""
    return f"{data['count']} of {data['caller']}{task} in a minute: {data['cause']}"


def _erased(data: Data) -> str:
    return f"person {data['person'][:8]} of {data['task']} by {data['actor']}: {data['reason']}"


def _revealed(data: Data) -> str:
    what = f"{', '.join(data['fields'])} of prediction {data['prediction_id']}"
    return f"{data['actor']} read {what}: {data['reason']}"


_WORDS: dict[str, Callable[[Data], str]] = {
    "PredictionMade": _prediction,
    "PredictionCorrected": _corrected,
    "LabelObserved": _label,
    "FeatureObserved": _observed,
    "SketchTaken": _sketch,
    "DriftScored": _drift,
    "PerformanceMeasured": _performance,
    "PerformanceEstimated": _estimated,
    "EstimateReconciled": _reconciled,
    "LabelsRequested": _labels_wanted,
    "QualityChecked": _quality,
    "QuarantineSet": _quarantine,
    "QuarantineReleased": _quarantine,
    "RetrainRequested": _request,
    "SnapshotTaken": _snapshot,
    "TrainingStarted": _started,
    "TrainingFinished": _finished,
    "TrainingFailed": _failed,
    "TrialFinished": _trial,
    "ModelRegistered": _registered,
    "ModelPromoted": _promoted,
    "ModelRolledBack": _promoted,
    "PromotionRejected": _rejected,
    "RolloutStarted": _rollout,
    "RolloutAdvanced": _advanced,
    "RolloutAborted": _aborted,
    "RolloutFinished": _won,
    "RolloutCommandGiven": _commanded,
    "ShadowPredictionMade": _shadow,
    "AlertRaised": _alert,
    "AlertResolved": _alert,
    "FaultInjected": _fault,
    "StateHashed": _hash,
    "KeyIssued": _issued,
    "KeyRevoked": _revoked,
    "RequestsRefused": _refused,
    "SubjectErased": _erased,
    "PersonalDataRevealed": _revealed,
}
