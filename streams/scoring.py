"""Scoring: sketches against the model's reference and its expected loss, window by window.

Sketches and model versions are read independently, so a window may be complete before its model is known;
it is then judged when the model comes. What is judged, and with which numbers, follows from the order
of the sketches alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import (
    DRIFT_SCORES,
    MODEL_VERSIONS,
    PERFORMANCE_SCORES,
    QUALITY_REPORTS,
    SKETCHES,
)
from schemas.event import Event, derive
from streams.canonical import transient
from streams.drift import score_drift
from streams.performance import change_detected, measure
from streams.quality import share_failures, volume_failure
from streams.task import Task

KEPT_WINDOWS = 32
"""A judged window is forgotten this many windows after it: a sketch that late changes nothing."""
WAITING_WINDOWS = 4096
"""Windows and outcomes of a version that wait for its ModelRegistered, at most."""
LOSSES = 128
"""Windows of a version that Page-Hinkley looks back on."""
VOLUME_WINDOWS = 7
MIN_VOLUME_WINDOWS = 3


@dataclass(slots=True)
class Model:
    """What scoring needs of a ModelRegistered."""

    reference: list[dict[str, Any]]
    reference_count: int
    expected_log_loss: float | None


@dataclass(slots=True)
class Part:
    """One partition's newest statement about a window."""

    revision: int
    count: int
    columns: dict[str, tuple[list[int], int, int]]
    """name -> counts, missing, unseen."""


@dataclass(slots=True)
class InputWindow:
    """The statements of all partitions about one window of one version."""

    end: int
    parts: dict[int, Part] = field(default_factory=dict)
    complete: bool = False
    stragglers: int = transient(default=0)
    """Partitions that spoke first when the window had been judged without them."""
    cause: str = transient(default="")
    volume: tuple[int, float | None] = transient(default=(0, None))
    """Rows of all versions in the window, and the usual number, when it was judged."""

    @property
    def revision(self) -> int:
        return sum(part.revision for part in self.parts.values()) + self.stragglers


@dataclass(slots=True)
class Version:
    """What is remembered about the windows of one model version."""

    inputs: dict[int, InputWindow] = field(default_factory=dict)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    """Outcomes that came before the model was known."""
    pressures: dict[int, tuple[int, float | None]] = field(default_factory=dict)
    """Window start -> revision, pressure (see Performance)."""


@dataclass(slots=True)
class ScoringState:
    models: dict[str, Model] = field(default_factory=dict)
    versions: dict[str, Version] = field(default_factory=dict)
    progress: dict[int, int] = field(default_factory=dict)
    """Partition -> start of the furthest window that it stated, of any version."""
    volumes: dict[int, int] = field(default_factory=dict)
    due: list[Event] = transient(default_factory=list)
    """What the last applied batch makes known."""


class Scoring:
    """Reactor: SketchTaken + ModelRegistered -> DriftScored, QualityChecked, PerformanceMeasured.

    A window of inputs is judged when each of `partitions` partitions has stated it or a later window, or
    the furthest one is two windows ahead (an idle partition holds nobody up). Later statements about
    a judged window restate it with a higher revision. 'score' is the last DriftScored of each statement.
    """

    topics = (SKETCHES, MODEL_VERSIONS)

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.scoring"
        self._partitions = partitions
        self._width = task.window_ms

    def initial(self) -> ScoringState:
        return ScoringState()

    def apply(self, state: ScoringState, batch: Sequence[Event]) -> ScoringState:
        state.due = []
        for event in batch:
            if event.data["task"] != self.task.name:
                continue
            if event.topic == MODEL_VERSIONS:
                self._registered(state, event)
            elif event.data["kind"] == "inputs":
                self._stated(state, event)
            elif event.data["kind"] == "outcomes":
                self._labelled(state, event)
        return state

    def react(self, state: ScoringState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due

    def _registered(self, state: ScoringState, event: Event) -> None:
        data, name = event.data, event.data["model_version"]
        if name in state.models:
            return
        reference = sorted(data["reference"], key=lambda column: column["name"] == "score")
        expected = data["metrics"].get("log_loss")
        state.models[name] = Model(reference, data["reference_count"], expected)
        version = state.versions.get(name)
        if version is None:
            return
        for start in sorted(version.inputs):
            if version.inputs[start].complete:
                self._judge(state, name, start)
        for sketch in version.waiting:
            self._measure(state, version, name, sketch)
        version.waiting.clear()
        self._forget(state)

    def _stated(self, state: ScoringState, event: Event) -> None:
        data, start = event.data, event.data["window_start"]
        if start < self._horizon(state):
            return
        version = state.versions.setdefault(data["model_version"], Version())
        window = version.inputs.setdefault(start, InputWindow(data["window_end"]))
        known = window.parts.get(data["partition"])
        if known is not None and known.revision >= data["revision"]:
            return
        window.parts[data["partition"]] = _part(data)
        before = known.count if known is not None else 0
        state.volumes[start] = state.volumes.get(start, 0) + data["count"] - before
        state.progress[data["partition"]] = max(start, state.progress.get(data["partition"], start))
        due = self._completed(state)
        if window.complete:
            window.stragglers += known is None
            due.append((start, data["model_version"]))
        for at, name in sorted(due):
            judged = state.versions[name].inputs[at]
            judged.complete = True
            judged.cause = event.id
            judged.volume = state.volumes[at], self._usual_volume(state, at)
            if name in state.models:
                self._judge(state, name, at)
        self._forget(state)

    def _completed(self, state: ScoringState) -> list[tuple[int, str]]:
        """Windows that every partition is done with and that were not complete so far."""
        furthest = max(state.progress.values())
        return [
            (start, name)
            for name, version in state.versions.items()
            for start, window in version.inputs.items()
            if not window.complete
            and (
                furthest >= start + 2 * self._width
                or all(
                    partition in window.parts or state.progress.get(partition, -1) > start
                    for partition in range(self._partitions)
                )
            )
        ]

    def _usual_volume(self, state: ScoringState, start: int) -> float | None:
        earlier = [
            state.volumes[at]
            for at in range(start - VOLUME_WINDOWS * self._width, start, self._width)
            if at in state.volumes
        ]
        return statistics.median(earlier) if len(earlier) >= MIN_VOLUME_WINDOWS else None

    def _judge(self, state: ScoringState, name: str, start: int) -> None:
        model, window = state.models[name], state.versions[name].inputs[start]
        if not model.reference:
            return
        policy, n_columns = self.task.drift, len(model.reference)
        columns, failures = _merge(model, window)
        volume = volume_failure(*window.volume)
        failures = [volume, *failures] if volume else failures
        about: dict[str, Any] = {
            "time": window.end,
            "caused_by": window.cause,
            "task": self.task.name,
            "model_version": name,
            "window_start": start,
            "window_end": window.end,
            "revision": window.revision,
            "count": sum(part.count for part in window.parts.values()),
        }
        cause = self.task.name, name, start
        for reference, column in zip(model.reference, columns, strict=True):
            drift = score_drift(reference, column, n_columns, policy)
            failures += share_failures(reference, column, n_columns, policy)
            feature = reference["name"]
            state.due.append(
                derive(
                    DRIFT_SCORES,
                    "DriftScored",
                    *(*cause, feature, window.revision),
                    **about,
                    feature=feature,
                    reference_count=model.reference_count,
                    psi=drift.psi,
                    ks=drift.ks,
                    js=drift.js,
                    threshold=drift.threshold,
                    drifted=drift.drifted,
                )
            )
        state.due.append(
            derive(
                QUALITY_REPORTS,
                "QualityChecked",
                *(*cause, window.revision),
                **about,
                passed=not failures,
                failures=failures,
            )
        )

    def _labelled(self, state: ScoringState, event: Event) -> None:
        name = event.data["model_version"]
        version = state.versions.setdefault(name, Version())
        if name in state.models:
            self._measure(state, version, name, event.data)
        else:
            version.waiting.append(dict(event.data))
            del version.waiting[:-WAITING_WINDOWS]

    def _measure(
        self, state: ScoringState, version: Version, name: str, sketch: Mapping[str, Any]
    ) -> None:
        start, revision = sketch["window_start"], sketch["revision"]
        if version.pressures.get(start, (-1, None))[0] >= revision:
            return
        measured = measure(sketch, state.models[name].expected_log_loss, self.task)
        version.pressures[start] = revision, measured.pressure
        history = [version.pressures[at][1] for at in sorted(version.pressures) if at <= start]
        for at in sorted(version.pressures)[:-LOSSES]:
            del version.pressures[at]
        state.due.append(
            derive(
                PERFORMANCE_SCORES,
                "PerformanceMeasured",
                *(self.task.name, name, start, revision),
                time=sketch["window_end"] + self.task.label_delay_ms,
                caused_by=sketch["event_id"],
                task=self.task.name,
                model_version=name,
                window_start=start,
                window_end=sketch["window_end"],
                revision=revision,
                count=sketch["count"],
                labelled=sum(sum(column["counts"]) for column in sketch["columns"]),
                positive_rate=measured.positive_rate,
                mean_score=measured.mean_score,
                log_loss=measured.log_loss,
                brier=measured.brier,
                auc=measured.auc,
                calibration_error=measured.calibration_error,
                expected_log_loss=measured.expected_log_loss,
                threshold=measured.threshold,
                degraded=measured.degraded,
                change_detected=measured.pressure is not None
                and change_detected([pressure for pressure in history if pressure is not None]),
            )
        )

    def _horizon(self, state: ScoringState) -> int:
        """Start of the oldest window that can still be restated."""
        return max(state.progress.values(), default=0) - KEPT_WINDOWS * self._width

    def _forget(self, state: ScoringState) -> None:
        horizon = self._horizon(state)
        for start in [start for start in state.volumes if start < horizon]:
            del state.volumes[start]
        for name, version in state.versions.items():
            if name in state.models:
                old = [start for start in version.inputs if start < horizon]
            else:
                old = sorted(version.inputs)[:-WAITING_WINDOWS]
            for start in old:
                del version.inputs[start]


def _part(data: Mapping[str, Any]) -> Part:
    return Part(
        data["revision"],
        data["count"],
        {c["name"]: (list(c["counts"]), c["missing"], c["unseen"]) for c in data["columns"]},
    )


def _merge(model: Model, window: InputWindow) -> tuple[list[dict[str, Any]], list[str]]:
    """One ColumnSketch per reference column, summed over partitions; a line per part that does not fit."""
    columns, failures = [], []
    for reference in model.reference:
        name, size = reference["name"], len(reference["counts"])
        merged = {"name": name, "counts": [0] * size, "missing": 0, "unseen": 0}
        for partition in sorted(window.parts):
            counts, missing, unseen = window.parts[partition].columns.get(name, ([], 0, 0))
            if len(counts) != size:
                failures.append(
                    f"{name}: partition {partition} was summarised in {len(counts)} bins,"
                    f" the reference has {size}"
                )
                continue
            merged["counts"] = [a + b for a, b in zip(merged["counts"], counts, strict=True)]
            merged["missing"] += missing
            merged["unseen"] += unseen
        columns.append(merged)
    return columns, failures
