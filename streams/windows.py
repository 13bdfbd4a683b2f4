"""Input windows: per partition and model version, histograms of every feature and of the score.

A window closes when its partition's stream time has passed its end plus grace; a later event restates it
with a higher revision. Each partition stands for itself, so workers can share partitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import MODEL_VERSIONS, SKETCHES, predictions_topic
from schemas.event import Event, derive
from streams.bins import MISSING, Bins
from streams.canonical import transient
from streams.task import Task

Window = tuple[str, int]
"""(model version, window start ms)"""
KEPT_WINDOWS = 8
"""A window is forgotten this many windows after it closed; an event that late is counted, not summarised."""


@dataclass(frozen=True, slots=True)
class Row:
    """What a window needs of a prediction; `late`: its window had closed when it arrived."""

    time: int
    score: float
    features: Mapping[str, Any]
    late: bool


@dataclass
class Sketch:
    """Counts of one window: `counts[column][bin]`, `missing[column]`."""

    count: int
    counts: list[list[int]]
    missing: list[int]
    revision: int = -1
    """-1 until it was stated."""


@dataclass
class PartitionWindows:
    stream_time: int = -1
    windows: dict[Window, Sketch] = field(default_factory=dict)
    waiting: dict[str, list[Row]] = field(default_factory=dict)
    """Rows of versions whose bins are not known yet: topics are read independently."""
    too_late: int = 0


@dataclass
class WindowState:
    bins: dict[str, list[Bins]] = transient(default_factory=dict)
    partitions: dict[int, PartitionWindows] = field(default_factory=dict)
    due: dict[tuple[int, Window], Sketch] = transient(default_factory=dict)
    """What the last applied event closed or restated."""


class InputWindows:
    """Reactor: PredictionMade -> SketchTaken(kind='inputs')."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = f"{task.name}.windows"
        self._predictions = predictions_topic(task.name)
        self.topics = (self._predictions, MODEL_VERSIONS)
        self._width = task.window_ms
        self._grace = task.drift.grace_minutes * 60_000

    def initial(self) -> WindowState:
        return WindowState()

    def apply(self, state: WindowState, batch: Sequence[Event]) -> WindowState:
        state.due = {}
        for event in batch:
            if event.topic == self._predictions:
                partition = event.at.partition if event.at else 0
                self._predicted(state, partition, event)
            elif event.data["task"] == self.task.name:
                self._registered(state, event)
        return state

    def react(self, state: WindowState, event: Event) -> list[Event]:
        return [
            self._statement(state, partition, window, sketch, event)
            for (partition, window), sketch in sorted(
                state.due.items(), key=lambda item: (item[0][0], item[0][1][1], item[0][1][0])
            )
        ]

    def _predicted(self, state: WindowState, partition: int, event: Event) -> None:
        mine = state.partitions.setdefault(partition, PartitionWindows())
        version = event.data["model_version"]
        start = self._start(event.time)
        if start < self._oldest(mine.stream_time):
            mine.too_late += 1
            return
        late = start + self._width + self._grace <= mine.stream_time
        row = Row(event.time, event.data["score"], event.data["features"], late)
        if version not in state.bins:
            mine.waiting.setdefault(version, []).append(row)
        elif late:
            self._state(state, partition, (version, start), self._add(state, mine, version, row))
        else:
            self._add(state, mine, version, row)
        if event.time > mine.stream_time:
            self._advance(state, partition, mine, event.time)

    def _registered(self, state: WindowState, event: Event) -> None:
        """Rows that waited for these bins are treated as if the bins had been there in time."""
        version = event.data["model_version"]
        state.bins[version] = [Bins.from_reference(c) for c in event.data["reference"]]
        for partition, mine in state.partitions.items():
            rows = mine.waiting.pop(version, [])
            for row in rows:
                if not row.late:
                    self._add(state, mine, version, row)
            self._close(state, partition, mine)
            for row in rows:
                if row.late:
                    window = version, self._start(row.time)
                    self._state(state, partition, window, self._add(state, mine, version, row))

    def _start(self, time: int) -> int:
        return time // self._width * self._width

    def _oldest(self, stream_time: int) -> int:
        return stream_time - self._width * KEPT_WINDOWS

    def _add(self, state: WindowState, mine: PartitionWindows, version: str, row: Row) -> Sketch:
        window = version, self._start(row.time)
        bins = state.bins[version]
        sketch = mine.windows.get(window)
        if sketch is None:
            counts = [[0] * column.size for column in bins]
            sketch = mine.windows[window] = Sketch(0, counts, [0] * len(bins))
        sketch.count += 1
        for place, column in enumerate(bins):
            value = row.score if column.name == "score" else row.features.get(column.name)
            index = column.index(value)
            if index == MISSING:
                sketch.missing[place] += 1
            else:
                sketch.counts[place][index] += 1
        return sketch

    def _advance(
        self, state: WindowState, partition: int, mine: PartitionWindows, time: int
    ) -> None:
        before, mine.stream_time = mine.stream_time, time
        if (time - self._grace) // self._width == (before - self._grace) // self._width:
            return
        self._close(state, partition, mine)
        oldest = self._oldest(time)
        for window in [window for window in mine.windows if window[1] < oldest]:
            del mine.windows[window]
        for version, rows in list(mine.waiting.items()):
            kept = [row for row in rows if self._start(row.time) >= oldest]
            if kept:
                mine.waiting[version] = kept
            else:
                del mine.waiting[version]

    def _close(self, state: WindowState, partition: int, mine: PartitionWindows) -> None:
        for window, sketch in mine.windows.items():
            end = window[1] + self._width
            if sketch.revision < 0 and end + self._grace <= mine.stream_time:
                self._state(state, partition, window, sketch)

    @staticmethod
    def _state(state: WindowState, partition: int, window: Window, sketch: Sketch) -> None:
        sketch.revision += 1
        state.due[partition, window] = sketch

    def _statement(
        self, state: WindowState, partition: int, window: Window, sketch: Sketch, cause: Event
    ) -> Event:
        version, start = window
        bins = state.bins[version]
        return derive(
            SKETCHES,
            "SketchTaken",
            *(self.task.name, version, "inputs", start, partition, sketch.revision),
            time=start + self._width,
            caused_by=cause.id,
            task=self.task.name,
            model_version=version,
            kind="inputs",
            window_start=start,
            window_end=start + self._width,
            partition=partition,
            revision=sketch.revision,
            count=sketch.count,
            columns=[
                {
                    "name": column.name,
                    "counts": list(counts),
                    "missing": missing,
                    "unseen": counts[-1] if column.categories is not None else 0,
                }
                for column, counts, missing in zip(bins, sketch.counts, sketch.missing, strict=True)
            ],
            totals={},
        )
