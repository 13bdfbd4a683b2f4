"""Scoring: sketches against the model's reference and its expected loss, window by window.

Sketches and model versions are read independently, so a window may be complete before its model is known;
it is then judged when the model comes. What is judged, and with which numbers, follows from the order
of the sketches alone. All columns that a batch of events makes due are measured in one call.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import add
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
from streams.complete import Completion
from streams.drift import Drift, Yardstick, compare
from streams.expectations import QualityPolicy
from streams.performance import change_detected, measure
from streams.quality import (
    TOLERATED_SHARE,
    Check,
    distribution_check,
    expected_checks,
    schema_failure,
    share_checks,
    verdict,
    volume_checks,
)
from streams.reference import input_columns, label_column
from streams.task import HOUR_MS, SCORE, Task

WAITING_WINDOWS = 4096
"""Windows and outcomes of a version that wait for its ModelRegistered, at most."""
LOSSES = 128
"""Windows of a version that Page-Hinkley looks back on."""
VOLUME_WINDOWS = 7
MIN_VOLUME_WINDOWS = 3


@dataclass(slots=True)
class Model:
    """What scoring needs of a ModelRegistered."""

    reference: list[Mapping[str, Any]]
    """Of the inputs; the score is the last."""
    reference_count: int
    expected_log_loss: float | None
    label: Mapping[str, Any] | None = None
    """The reference of the labels."""
    expected_rows: float | None = None
    """Rows that `expected_log_loss` was measured on."""


@dataclass(slots=True)
class Part:
    """One partition's newest statement about a window."""

    revision: int
    count: int
    columns: dict[str, tuple[list[int], int, int]]
    """name -> counts, missing, unseen."""
    ranges: dict[str, tuple[float, float]]
    """name -> least and greatest value, of the columns for which the task asks."""


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
    gap_hours: float | None = transient(default=None)
    """Hours without rows before it."""

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
    last_rows: int = -1
    """Start of the last window with rows among the forgotten ones; -1: none."""
    due: list[Event] = transient(default_factory=list)
    """What the last applied batch makes known."""


@dataclass(slots=True)
class Comparison:
    """Histograms of one window that wait to be measured, and what is to be said about them."""

    yardstick: Yardstick
    reference: Sequence[Mapping[str, Any]]
    histograms: list[list[int]]
    """Per column of the reference, the missing as one more bin."""
    unseen: list[int]
    reference_count: int
    about: dict[str, Any]
    """Fields that all events about the window share."""
    checks: list[Check] | None = None
    """Of the window so far; None if its quality is not to be reported."""
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """name -> least and greatest value, of the columns for which the task asks."""


class Scoring:
    """Reactor: SketchTaken + ModelRegistered -> DriftScored, QualityChecked, PerformanceMeasured.

    A window of inputs is judged when each of `partitions` partitions has stated it or a later window, or
    the furthest one is two windows ahead (an idle partition holds nobody up). Later statements about
    a judged window restate it with a higher revision. 'score' is the last DriftScored of each statement.
    The drift of the labels is known with the performance, a label delay later.
    """

    topics = (SKETCHES, MODEL_VERSIONS)

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.scoring"
        self._completion = Completion(partitions, task.window_ms)
        self._width = task.window_ms
        # nobody counts texts, but their lengths: these are missing where the texts are
        self._expected = {
            f"{n}.length" if n in task.texts else n: expect for n, expect in task.expected.items()
        }
        self._bounded = frozenset(n for n, expect in task.expected.items() if expect.bounded)
        self._yardsticks: dict[tuple[str, bool], tuple[object, Yardstick]] = {}

    def initial(self) -> ScoringState:
        return ScoringState()

    def apply(self, state: ScoringState, batch: Sequence[Event]) -> ScoringState:
        due: list[Event | Comparison] = []
        for event in batch:
            if event.data["task"] != self.task.name:
                continue
            if event.topic == MODEL_VERSIONS:
                self._registered(state, event, due)
            elif event.data["kind"] == "inputs":
                self._stated(state, event, due)
            elif event.data["kind"] == "outcomes":
                self._labelled(state, event, due)
        state.due = self._said(due) if due else []
        return state

    def react(self, state: ScoringState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due

    def _registered(self, state: ScoringState, event: Event, due: list[Event | Comparison]) -> None:
        data, name = event.data, event.data["model_version"]
        if name in state.models:
            return
        reference = input_columns(data["reference"])
        reference.sort(key=lambda column: column["name"] == SCORE)
        expected = data["metrics"].get("log_loss")
        label = label_column(data["reference"])
        rows = data["metrics"].get("rows")
        state.models[name] = Model(reference, data["reference_count"], expected, label, rows)
        version = state.versions.get(name)
        if version is None:
            return
        for start in sorted(version.inputs):
            if version.inputs[start].complete:
                self._judge(state, name, start, due)
        for sketch in version.waiting:
            self._measure(state, version, name, sketch, due)
        version.waiting.clear()
        self._forget(state)

    def _stated(self, state: ScoringState, event: Event, due: list[Event | Comparison]) -> None:
        data, start = event.data, event.data["window_start"]
        name, partition = data["model_version"], data["partition"]
        if start < self._completion.horizon(state.progress):
            return
        version = state.versions.setdefault(name, Version())
        window = version.inputs.setdefault(start, InputWindow(data["window_end"]))
        known = window.parts.get(partition)
        if known is not None and known.revision >= data["revision"]:
            return
        window.parts[partition] = _part(data, self._bounded)
        before = known.count if known is not None else 0
        state.volumes[start] = state.volumes.get(start, 0) + data["count"] - before
        advanced = start > state.progress.get(partition, -1)
        if advanced:
            state.progress[partition] = start
        # Only a partition that went on can complete another window than its own.
        near = {each: seen.inputs for each, seen in state.versions.items()} if advanced else {}
        open_ = near or {name: {start: window}}
        complete = list(self._completion.newly(state.progress, open_))
        if window.complete:
            window.stragglers += known is None
            complete.append((start, name))
        for at, which in sorted(complete):
            judged = state.versions[which].inputs[at]
            judged.complete = True
            judged.cause = event.id
            judged.volume = state.volumes[at], self._usual_volume(state, at)
            judged.gap_hours = self._gap_hours(state, at)
            if which in state.models:
                self._judge(state, which, at, due)
        if advanced or len(version.inputs) > WAITING_WINDOWS:
            self._forget(state)

    def _usual_volume(self, state: ScoringState, start: int) -> float | None:
        earlier = [
            state.volumes[at]
            for at in range(start - VOLUME_WINDOWS * self._width, start, self._width)
            if at in state.volumes
        ]
        return statistics.median(earlier) if len(earlier) >= MIN_VOLUME_WINDOWS else None

    def _gap_hours(self, state: ScoringState, start: int) -> float | None:
        """Hours between the last window with rows before `start` and this one; None if there is none."""
        if self.task.quality.max_gap_hours is None:
            return None
        known = [at for at, rows in state.volumes.items() if at < start and rows]
        last = max(known, default=state.last_rows)
        return None if last < 0 else (start - last - self._width) / HOUR_MS

    def _judge(
        self, state: ScoringState, name: str, start: int, due: list[Event | Comparison]
    ) -> None:
        model, window = state.models[name], state.versions[name].inputs[start]
        if not model.reference:
            return
        histograms, unseen, checks = _merge(model, window, self.task.quality)
        checks = volume_checks(*window.volume, window.gap_hours, self.task.quality) + checks
        about = {
            "time": window.end,
            "caused_by": window.cause,
            "task": self.task.name,
            "model_version": name,
            "window_start": start,
            "window_end": window.end,
            "revision": window.revision,
            "count": sum(part.count for part in window.parts.values()),
        }
        due.append(
            Comparison(
                self._yardstick(name, model, model.reference),
                model.reference,
                histograms,
                unseen,
                model.reference_count,
                about,
                checks,
                _ranges(window),
            )
        )

    def _yardstick(
        self, name: str, model: Model, reference: Sequence[Mapping[str, Any]]
    ) -> Yardstick:
        """Of these columns, which belong to the model: made once (the state may change, they do not)."""
        key = name, reference is model.reference
        known = self._yardsticks.get(key)
        if known is None or known[0] is not model:
            n_columns = len(model.reference) + (model.label is not None)
            known = model, Yardstick(reference, n_columns, self.task.drift)
            self._yardsticks[key] = known
        return known[1]

    def _said(self, due: Sequence[Event | Comparison]) -> list[Event]:
        """What is due as events, in order, with everything that is to be measured measured."""
        waiting = [one for one in due if isinstance(one, Comparison)]
        windows = [(one.yardstick, one.histograms) for one in waiting]
        measured = iter(compare(windows, self.task.drift))
        said: list[Event] = []
        for one in due:
            if isinstance(one, Comparison):
                said += self._verdict(one, next(measured))
            else:
                said.append(one)
        return said

    def _verdict(self, window: Comparison, drifts: Sequence[Drift]) -> list[Event]:
        about = window.about
        cause = self.task.name, about["model_version"], about["window_start"]
        said = [
            derive(
                DRIFT_SCORES,
                "DriftScored",
                *(*cause, reference["name"], about["revision"]),
                **about,
                feature=reference["name"],
                reference_count=window.reference_count,
                psi=drift.psi,
                ks=drift.ks,
                js=drift.js,
                threshold=drift.threshold,
                drifted=drift.drifted,
            )
            for reference, drift in zip(window.reference, drifts, strict=True)
        ]
        if window.checks is None:
            return said
        checks = window.checks + self._column_checks(window, drifts)
        said.append(
            derive(
                QUALITY_REPORTS,
                "QualityChecked",
                *(*cause, about["revision"]),
                **about,
                **verdict(checks),
                subject="window",
                request_id=None,
            )
        )
        return said

    def _column_checks(self, window: Comparison, drifts: Sequence[Drift]) -> list[Check]:
        """What the task expects of each column; else what is wrong with it beside the reference."""
        checks, policy = [], self.task.quality
        n_columns = len(window.reference)
        for reference, histogram, unseen, drift in zip(
            window.reference, window.histograms, window.unseen, drifts, strict=True
        ):
            missing, rows = histogram[-1], sum(histogram)
            column = {"counts": histogram[:-1], "missing": missing, "unseen": unseen}
            name = reference["name"]
            expect = self._expected.get(name)
            declared: list[Check] = []
            if expect is not None:
                declared = expected_checks(expect, reference, column, window.ranges.get(name))
                checks += declared
            if max(missing, unseen) > TOLERATED_SHARE * rows:  # else no share is too large
                asked = {check.name for check in declared}
                usual = share_checks(reference, column, n_columns, self.task.drift, policy)
                checks += [check for check in usual if check.name not in asked]
            if policy.max_psi is not None and rows >= self.task.drift.min_rows:
                checks.append(distribution_check(name, drift.psi, rows, policy))
        return checks

    def _labelled(self, state: ScoringState, event: Event, due: list[Event | Comparison]) -> None:
        name = event.data["model_version"]
        version = state.versions.setdefault(name, Version())
        if name in state.models:
            self._measure(state, version, name, event.data, due)
        else:
            version.waiting.append(dict(event.data))
            del version.waiting[:-WAITING_WINDOWS]

    def _measure(
        self,
        state: ScoringState,
        version: Version,
        name: str,
        sketch: Mapping[str, Any],
        due: list[Event | Comparison],
    ) -> None:
        start, revision = sketch["window_start"], sketch["revision"]
        if version.pressures.get(start, (-1, None))[0] >= revision:
            return
        model = state.models[name]
        measured = measure(sketch, model.expected_log_loss, self.task, model.expected_rows)
        version.pressures[start] = revision, measured.pressure
        history = [version.pressures[at][1] for at in sorted(version.pressures) if at <= start]
        for at in sorted(version.pressures)[:-LOSSES]:
            del version.pressures[at]
        labels = {column["name"]: sum(column["counts"]) for column in sketch["columns"]}
        about = {
            "time": sketch["window_end"] + self.task.label_delay_ms,
            "caused_by": sketch["event_id"],
            "task": self.task.name,
            "model_version": name,
            "window_start": start,
            "window_end": sketch["window_end"],
            "revision": revision,
        }
        due.append(
            derive(
                PERFORMANCE_SCORES,
                "PerformanceMeasured",
                *(self.task.name, name, start, revision),
                **about,
                count=sketch["count"],
                labelled=sum(labels.values()),
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
        if model.label is not None:
            histogram = [labels["score|0"], labels["score|1"], 0]
            reference = [model.label]
            due.append(
                Comparison(
                    self._yardstick(name, model, reference),
                    reference,
                    [histogram],
                    [0],
                    model.reference_count,
                    {**about, "count": sum(histogram)},
                )
            )

    def _forget(self, state: ScoringState) -> None:
        horizon = self._completion.horizon(state.progress)
        for start in [start for start in state.volumes if start < horizon]:
            if state.volumes.pop(start):
                state.last_rows = max(state.last_rows, start)
        for name, version in state.versions.items():
            if name in state.models:
                old = [start for start in version.inputs if start < horizon]
            else:
                old = sorted(version.inputs)[:-WAITING_WINDOWS]
            for start in old:
                del version.inputs[start]


def _part(data: Mapping[str, Any], bounded: frozenset[str]) -> Part:
    columns = data["columns"]
    return Part(
        data["revision"],
        data["count"],
        {c["name"]: (list(c["counts"]), c["missing"], c["unseen"]) for c in columns},
        {
            c["name"]: (c["minimum"], c["maximum"])
            for c in columns
            if c["name"] in bounded and c.get("minimum") is not None
        }
        if bounded
        else {},
    )


def _ranges(window: InputWindow) -> dict[str, tuple[float, float]]:
    """name -> least and greatest value over all partitions."""
    found: dict[str, tuple[float, float]] = {}
    for part in window.parts.values():
        for name, (least, greatest) in part.ranges.items():
            low, high = found.get(name, (least, greatest))
            found[name] = min(low, least), max(high, greatest)
    return found


def _merge(
    model: Model, window: InputWindow, policy: QualityPolicy
) -> tuple[list[list[int]], list[int], list[Check]]:
    """Per reference column: counts and missing, summed over partitions; the unseen. And what does not fit."""
    histograms, unseen_of, failures = [], [], []
    parts = [(partition, window.parts[partition].columns) for partition in sorted(window.parts)]
    for reference in model.reference:
        name, size = reference["name"], len(reference["counts"])
        merged: list[int] = []
        total = all_unseen = 0
        for partition, columns in parts:
            counts, missing, unseen = columns.get(name, ([], 0, 0))
            if len(counts) != size:
                failures.append(schema_failure(name, partition, len(counts), size, policy))
                continue
            merged = list(map(add, merged, counts)) if merged else counts[:]
            total += missing
            all_unseen += unseen
        merged = merged or [0] * size
        merged.append(total)
        histograms.append(merged)
        unseen_of.append(all_unseen)
    return histograms, unseen_of, failures
