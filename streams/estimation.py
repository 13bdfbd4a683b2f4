"""Estimates of performance, window by window, and what the labels later made of them.

Sketches and model versions are read independently, so what a window says may wait for its model; what is
said, and in which order, follows from the order of the sketches alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import add
from typing import Any

import numpy as np

from schemas.catalogue import ESTIMATE_ERRORS, MODEL_VERSIONS, PERFORMANCE_ESTIMATES, SKETCHES
from schemas.event import Event, derive
from streams.canonical import transient
from streams.complete import Completion
from streams.estimate import CONFIDENCE, MEASURES, Estimate, Estimated, estimate
from streams.performance import measure
from streams.reference import DECIMALS
from streams.scoring import WAITING_WINDOWS
from streams.task import SCORE, Task


@dataclass(slots=True)
class Calibration:
    """What a ModelRegistered says about its scores; no bins: nothing can be estimated."""

    bins: list[Mapping[str, Any]]
    usual: Mapping[str, float]
    expected_log_loss: float | None


@dataclass(slots=True)
class Scores:
    """One window of one version: partition -> revision, score histogram of its newest sketch."""

    end: int
    parts: dict[int, tuple[int, list[int]]] = field(default_factory=dict)
    complete: bool = False
    stragglers: int = 0
    """Partitions that spoke first when the window had been estimated without them."""

    @property
    def revision(self) -> int:
        return sum(revision for revision, _ in self.parts.values()) + self.stragglers

    def counts(self) -> list[int]:
        """Over all partitions; empty if they do not have the same bins."""
        parts = [counts for _, counts in self.parts.values()]
        if len({len(counts) for counts in parts}) != 1:
            return []
        merged = [0] * len(parts[0])
        for part in parts:
            merged = list(map(add, merged, part))
        return merged


@dataclass(slots=True)
class Statement:
    """What a window said of itself: a histogram of scores, or (`outcomes`) the sketch of its labels."""

    start: int
    end: int
    revision: int
    cause: str
    counts: list[int] = field(default_factory=list)
    outcomes: dict[str, Any] | None = None


@dataclass(slots=True)
class Windows:
    """What is remembered about the windows of one version."""

    open: dict[int, Scores] = field(default_factory=dict)
    waiting: list[Statement] = field(default_factory=list)
    """Statements that came before the model was known."""
    stated: dict[int, Statement] = field(default_factory=dict)
    """Window start -> the newest histogram that was estimated from."""
    realised: dict[int, Statement] = field(default_factory=dict)


@dataclass(slots=True)
class EstimationState:
    models: dict[str, Calibration] = field(default_factory=dict)
    versions: dict[str, Windows] = field(default_factory=dict)
    progress: dict[int, int] = field(default_factory=dict)
    """Partition -> start of the furthest window that it stated, of any version."""
    due: list[Event] = transient(default_factory=list)
    """What the last applied batch makes known."""


class Estimation:
    """Reactor: SketchTaken + ModelRegistered -> PerformanceEstimated, and EstimateReconciled with the labels.

    What a window is complete by says `streams.complete`. A later sketch restates it with a higher revision.
    """

    topics = (SKETCHES, MODEL_VERSIONS)

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.estimation"
        self._completion = Completion(partitions, task.window_ms)

    def initial(self) -> EstimationState:
        return EstimationState()

    def apply(self, state: EstimationState, batch: Sequence[Event]) -> EstimationState:
        state.due = []
        for event in batch:
            if event.data["task"] != self.task.name:
                continue
            if event.topic == MODEL_VERSIONS:
                self._registered(state, event.data)
            elif event.data["kind"] == "inputs":
                self._sketched(state, event)
            elif event.data["kind"] == "outcomes":
                data = dict(event.data)
                span = data["window_start"], data["window_end"]
                found = Statement(*span, data["revision"], event.id, outcomes=data)
                self._state(state, data["model_version"], found)
        return state

    def react(self, state: EstimationState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due

    def _registered(self, state: EstimationState, data: Mapping[str, Any]) -> None:
        name = data["model_version"]
        if name in state.models:
            return
        state.models[name] = Calibration(
            list(data.get("calibration", ())),
            dict(data.get("estimate_errors", {})),
            data["metrics"].get("log_loss"),
        )
        version = state.versions.setdefault(name, Windows())
        waiting, version.waiting = version.waiting, []
        for statement in waiting:
            self._state(state, name, statement)

    def _sketched(self, state: EstimationState, event: Event) -> None:
        data, start = event.data, event.data["window_start"]
        name, partition = data["model_version"], data["partition"]
        if start < self._completion.horizon(state.progress):
            return
        version = state.versions.setdefault(name, Windows())
        window = version.open.setdefault(start, Scores(data["window_end"]))
        known = window.parts.get(partition)
        if known is not None and known[0] >= data["revision"]:
            return
        counts: list[int] = next((c["counts"] for c in data["columns"] if c["name"] == SCORE), [])
        window.parts[partition] = data["revision"], list(counts)
        advanced = start > state.progress.get(partition, -1)
        if advanced:
            state.progress[partition] = start
        # Only a partition that went on can complete another window than its own.
        near = {each: seen.open for each, seen in state.versions.items()} if advanced else {}
        open_ = near or {name: {start: window}}
        complete = list(self._completion.newly(state.progress, open_))
        if window.complete:
            window.stragglers += known is None
            complete.append((start, name))
        for at, which in sorted(complete):
            done = state.versions[which].open[at]
            done.complete = True
            self._state(
                state, which, Statement(at, done.end, done.revision, event.id, done.counts())
            )
        if advanced:
            self._forget(state)

    def _state(self, state: EstimationState, name: str, statement: Statement) -> None:
        version = state.versions.setdefault(name, Windows())
        model = state.models.get(name)
        if model is None:
            version.waiting.append(statement)
            del version.waiting[:-WAITING_WINDOWS]
            return
        if not model.bins:
            return
        known = version.stated if statement.outcomes is None else version.realised
        before = known.get(statement.start)
        if before is not None and before.revision >= statement.revision:
            return
        # Which partition's sketch came last, and so completed a window, is an accident of a live run.
        kept = replace(statement, cause="") if statement.outcomes is None else statement
        known[statement.start] = kept
        for old in sorted(known)[:-WAITING_WINDOWS]:
            del known[old]
        if statement.outcomes is None:
            self._estimate(state, name, model, statement)
        stated = version.stated.get(statement.start)
        realised = version.realised.get(statement.start)
        if stated and realised and (statement.outcomes is not None or before is None):
            self._reconcile(state, name, model, stated, realised)
            version.realised[statement.start] = replace(realised, outcomes={})  # done with

    def _estimate(
        self, state: EstimationState, name: str, model: Calibration, statement: Statement
    ) -> None:
        found = estimate(model.bins, statement.counts, model.usual)
        if found is None:
            return
        bands: dict[str, Any] = {}
        for what in MEASURES:
            one: Estimated | None = getattr(found, what)
            bands[what] = one.value if one else None
            bands[f"{what}_error"] = one.error if one else None
            bands[f"{what}_low"] = one.low if one else None
            bands[f"{what}_high"] = one.high if one else None
        state.due.append(
            derive(
                PERFORMANCE_ESTIMATES,
                "PerformanceEstimated",
                *(self.task.name, name, statement.start, statement.revision),
                **self._about(name, statement, statement.end),
                count=sum(statement.counts),
                positive_rate=found.positive_rate,
                confidence=CONFIDENCE,
                expected_log_loss=model.expected_log_loss,
                **bands,
            )
        )

    def _reconcile(
        self,
        state: EstimationState,
        name: str,
        model: Calibration,
        stated: Statement,
        realised: Statement,
    ) -> None:
        assert realised.outcomes is not None
        said = estimate(model.bins, stated.counts, model.usual)
        came = _realised(realised.outcomes, self.task)
        if said is None or came["log_loss"] is None:
            return
        measures = _compared(said, came)
        state.due.append(
            derive(
                ESTIMATE_ERRORS,
                "EstimateReconciled",
                *(self.task.name, name, realised.start, realised.revision),
                **self._about(name, realised, realised.end + self.task.label_delay_ms),
                estimate_revision=stated.revision,
                count=sum(stated.counts),
                labelled=came["labelled"],
                measures=measures,
                within=all(each["within"] for each in measures),
            )
        )

    def _about(self, name: str, statement: Statement, time: int) -> dict[str, Any]:
        return {
            "time": time,
            "caused_by": statement.cause,
            "task": self.task.name,
            "model_version": name,
            "window_start": statement.start,
            "window_end": statement.end,
            "revision": statement.revision,
        }

    def _forget(self, state: EstimationState) -> None:
        horizon = self._completion.horizon(state.progress)
        for version in state.versions.values():
            for start in [start for start in version.open if start < horizon]:
                del version.open[start]


def _compared(said: Estimate, came: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per measure that both know: estimate, realised value, error, and whether it lies in the band."""
    found = []
    for name in MEASURES:
        one: Estimated | None = getattr(said, name)
        if one is None or came[name] is None:
            continue
        found.append(
            {
                "name": name,
                "estimate": one.value,
                "low": one.low,
                "high": one.high,
                "realised": came[name],
                "error": round(came[name] - one.value, DECIMALS),
                "within": one.low <= came[name] <= one.high,
            }
        )
    return found


def _realised(sketch: Mapping[str, Any], task: Task) -> dict[str, Any]:
    """Measures of an 'outcomes' SketchTaken; accuracy only if the threshold lies between two of its bins."""
    found = measure(sketch, None, task)
    counts = {column["name"]: np.asarray(column["counts"]) for column in sketch["columns"]}
    negatives, positives = counts["score|0"], counts["score|1"]
    labelled = int(negatives.sum() + positives.sum())
    place = task.decision_threshold * len(negatives)
    accuracy = None
    if labelled and abs(place - round(place)) < 1e-9:
        right = negatives[: round(place)].sum() + positives[round(place) :].sum()
        accuracy = round(int(right) / labelled, DECIMALS)
    return {
        "log_loss": found.log_loss,
        "accuracy": accuracy,
        "auc": found.auc,
        "labelled": labelled,
    }
