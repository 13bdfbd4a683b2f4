"""The story of a run, told from its events alone: what drifted, what was retrained, what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from schemas.catalogue import (
    DEPLOYMENTS,
    DRIFT_SCORES,
    FAULTS,
    MODEL_VERSIONS,
    PERFORMANCE_SCORES,
    RETRAIN_REQUESTS,
    SNAPSHOTS,
    TRAINING_RUNS,
)
from schemas.event import Event

TOPICS = (
    DRIFT_SCORES,
    PERFORMANCE_SCORES,
    RETRAIN_REQUESTS,
    SNAPSHOTS,
    TRAINING_RUNS,
    MODEL_VERSIONS,
    DEPLOYMENTS,
    FAULTS,
)


@dataclass(slots=True)
class Retrain:
    """One request for a model and what became of it."""

    request: dict[str, Any]
    asked_ms: int = 0
    """When it was recorded (wall clock), as for `decided_ms`."""
    rows: int = 0
    version: str = ""
    decision: str = "pending"
    reason: str = ""
    gates: list[dict[str, Any]] = field(default_factory=list)
    decided_ms: int = 0

    @property
    def seconds(self) -> float | None:
        return (self.decided_ms - self.asked_ms) / 1000 if self.decided_ms else None


@dataclass(slots=True)
class Story:
    """Counts and retrains of one task."""

    windows: int = 0
    scores: int = 0
    drifted: dict[str, int] = field(default_factory=dict)
    """Column -> windows of a version in which it drifted."""
    retrains: dict[str, Retrain] = field(default_factory=dict)
    promoted: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def tell(events: Iterable[Event], task: str) -> Story:
    """Fold the events of `TOPICS` into a story; repeats are told once."""
    story, seen, windows = Story(), set[str](), set[tuple[str, int]]()
    drifted = set[tuple[str, str, int]]()
    for event in events:
        data = dict(event.data)
        if event.id in seen or data.get("task", task) != task:
            continue
        seen.add(event.id)
        if event.type == "DriftScored":
            window = data["model_version"], data["window_start"]
            windows.add(window)
            story.scores += 1
            if data["drifted"]:
                drifted.add((data["feature"], *window))
        elif event.type == "RetrainRequested":
            retrain = story.retrains.setdefault(event.id, Retrain({}))
            retrain.request, retrain.asked_ms = data, event.recorded_ms
        elif event.type == "FaultInjected":
            story.faults.append(f"{data['kind']} {data['target']}")
        elif data.get("request_id"):
            _step(story.retrains.setdefault(data["request_id"], Retrain({})), event)
        if event.type in ("ModelPromoted", "ModelRolledBack"):
            story.promoted.append(data["model_version"])
    story.windows = len(windows)
    story.drifted = dict(Counter(feature for feature, _, _ in sorted(drifted)).most_common())
    return story


def _step(retrain: Retrain, event: Event) -> None:
    data = event.data
    if event.type == "SnapshotTaken":
        retrain.rows = max(retrain.rows, data["rows"])
    elif event.type in ("ModelPromoted", "PromotionRejected", "TrainingFailed"):
        retrain.decision = {
            "ModelPromoted": "promoted",
            "PromotionRejected": "rejected",
            "TrainingFailed": "failed",
        }[event.type]
        retrain.version = data["model_version"]
        retrain.reason = data["reason"]
        retrain.gates = list(data.get("gates", []))
        retrain.decided_ms = event.recorded_ms


def day(ms: int) -> str:
    """`2013-02-01` of an event time in ms."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d")
