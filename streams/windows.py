"""Input windows: per partition and model version, histograms of every feature and of the score.

One pure function over columns, for the live worker, replay and backfill alike. A window closes when its
partition's stream time has passed its end plus grace; later events restate it with a higher revision. Each
partition stands for itself, so workers can share partitions. What is stated depends on the records and
their order alone, never on how they were cut into batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.catalogue import SKETCHES, predictions_topic
from schemas.columnar import Columns, Kind
from schemas.event import Event, derive
from streams.canonical import transient
from streams.placing import Placed, place
from streams.task import TEXT, Task
from streams.window_bins import ModelBins, Tallies

Window = tuple[str, int]
"""(model version, window start ms)"""
Texts = Mapping[str, Sequence[str]]
"""The texts behind the codes of each coded path."""
Models = Mapping[str, ModelBins]
Name = Callable[[int], str]
"""The event id of a row of the batch: asked only for the few rows that close or restate a window."""

KEPT_WINDOWS = 8
"""A window is forgotten this many windows after it closed; an event that late is counted, not summarised."""
MAX_PENDING_ROWS = 200_000
"""Rows of unregistered versions that wait for their bins, per partition."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the partition, and what was known of it there: where a restart can begin to read."""

    offset: int
    stream_time: int
    too_late: int


START = Mark(0, -1, 0)


@dataclass
class Sketch:
    """What is known of one window."""

    count: int = 0
    late: int = 0
    """Rows that came after it had closed."""
    stated: int = -1
    """The revision of the last statement; -1: none yet."""
    tallies: Tallies | None = None
    """None while the version's bins are unknown."""
    first: Mark = transient(default=START)
    """The record that opened it."""
    cause: str = transient(default="")
    """The event that closed or last restated it."""
    pending: list[dict[str, NDArray[Any]]] = transient(default_factory=list)
    """Rows that wait for the bins."""
    lost: bool = transient(default=False)
    """Too many rows waited: some were given up, so nothing can be said of the window."""

    @property
    def revision(self) -> int:
        """Of a closed window: how many rows came late, not counting the one that opened it, if it was late.

        So a revision always stands for the same content.
        """
        return self.late - (self.late == self.count)


@dataclass
class PartitionWindows:
    """The windows of one partition, and how far its event time has come (ms)."""

    stream_time: int = -1
    windows: dict[Window, Sketch] = field(default_factory=dict)
    too_late: int = 0
    unsummarised: int = transient(default=0)
    """Rows given up because their version was not registered while too many waited."""
    pending: int = transient(default=0)

    def restart(self, position: int) -> Mark:
        """Where to read from to get this state at `position` again, given the mark's numbers."""
        marks = [sketch.first for sketch in self.windows.values()]
        here = Mark(position, self.stream_time, self.too_late)
        return min(marks, key=lambda mark: mark.offset, default=here)

    @classmethod
    def at(cls, mark: Mark) -> PartitionWindows:
        """The state before the record at the mark, as far as later records depend on it."""
        return cls(stream_time=mark.stream_time, too_late=mark.too_late)


class WindowFold:
    """PredictionMade as columns -> SketchTaken(kind='inputs')."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.topic = predictions_topic(task.name)
        self._width = task.window_ms
        self._grace = task.grace_ms
        self._kept = self._width * KEPT_WINDOWS

    @property
    def projection(self) -> dict[str, Kind]:
        """What it needs of a PredictionMade."""
        wanted: dict[str, Kind] = {"double": "double", "string": "code", TEXT: "text"}
        features = {f"features.{name}": wanted[kind] for name, kind in self.task.kinds.items()}
        return {
            "event_id": "id",
            "event_time": "long",
            "model_version": "code",
            "score": "double",
            **features,
        }

    def absorb(
        self, state: PartitionWindows, columns: Columns, texts: Texts, models: Models, name: Name
    ) -> list[Event]:
        """Take in the next records of the partition (no repeats among them); statements now due."""
        if not len(columns):
            return []
        placed = place(
            columns.data["event_time"],
            columns.data["model_version"],
            state.stream_time,
            self._width,
            self._grace,
            self._kept,
        )
        versions = texts["model_version"]
        sketches = [
            self._count(state, versions, columns, placed, slot, name)
            for slot in range(len(placed.start))
        ]
        for code in sorted(set(placed.version.tolist())):
            model = models.get(versions[code]) if code >= 0 else None
            self._fill(state, model, columns, texts, placed, code, sketches)
        state.stream_time = placed.stream_time
        state.too_late += placed.too_late
        self._name_causes(state, placed, name)
        return self._due(state, columns.partition, models)

    def release(
        self, state: PartitionWindows, partition: int, texts: Texts, models: Models
    ) -> list[Event]:
        """Bin the rows whose version is registered by now, as if it had always been; statements now due."""
        for (version, _), sketch in state.windows.items():
            if sketch.tallies is None and version in models:
                _binned(state, sketch, models[version], texts)
        return self._due(state, partition, models)

    def _count(
        self,
        state: PartitionWindows,
        versions: Sequence[str],
        columns: Columns,
        placed: Placed,
        slot: int,
        name: Name,
    ) -> Sketch:
        code = int(placed.version[slot])
        window = versions[code] if code >= 0 else "", int(placed.start[slot])
        sketch = state.windows.get(window)
        if sketch is None:
            row = int(placed.first[slot])
            too_late = state.too_late + int(placed.too_late_before[slot])
            first = Mark(int(columns.offset[row]), int(placed.before[row]), too_late)
            sketch = state.windows[window] = Sketch(first=first)
        sketch.count += int(placed.rows[slot])
        if placed.late[slot]:
            sketch.late += int(placed.late[slot])
            sketch.cause = name(int(placed.last_late[slot]))
        return sketch

    def _fill(
        self,
        state: PartitionWindows,
        model: ModelBins | None,
        columns: Columns,
        texts: Texts,
        placed: Placed,
        code: int,
        sketches: Sequence[Sketch],
    ) -> None:
        slots = np.flatnonzero(placed.version == code).tolist()
        if model is None:
            for slot in slots:
                _keep(state, sketches[slot], columns, placed.rows_of(slot), code)
            return
        tallies = [_binned(state, sketches[slot], model, texts) for slot in slots]
        rows = np.concatenate([placed.rows_of(slot) for slot in slots])
        model.add(tallies, columns.data, texts, rows, placed.rows[slots])

    def _name_causes(self, state: PartitionWindows, placed: Placed, name: Name) -> None:
        for (_, start), sketch in state.windows.items():
            until = start + self._width + self._grace
            if not sketch.cause and until <= state.stream_time:
                sketch.cause = name(int(np.searchsorted(placed.before, until)) - 1)

    def _due(self, state: PartitionWindows, partition: int, models: Models) -> list[Event]:
        """Closed windows with something new; then those that are too old are forgotten."""
        due = [
            (start, version)
            for (version, start), sketch in state.windows.items()
            if sketch.tallies is not None
            and not sketch.lost
            and start + self._width + self._grace <= state.stream_time
            and sketch.stated < sketch.revision
        ]
        said = []
        for start, version in sorted(due):
            sketch = state.windows[version, start]
            sketch.stated = sketch.revision
            said.append(self._statement(partition, version, start, sketch, models[version]))
        oldest = state.stream_time - self._kept
        for window in [window for window in state.windows if window[1] < oldest]:
            state.pending -= sum(len(r["event_time"]) for r in state.windows.pop(window).pending)
        return said

    def _statement(
        self, partition: int, version: str, start: int, sketch: Sketch, model: ModelBins
    ) -> Event:
        assert sketch.tallies is not None
        return derive(
            SKETCHES,
            "SketchTaken",
            *(self.task.name, version, "inputs", start, partition, sketch.revision),
            time=start + self._width,
            caused_by=sketch.cause,
            task=self.task.name,
            model_version=version,
            kind="inputs",
            window_start=start,
            window_end=start + self._width,
            partition=partition,
            revision=sketch.revision,
            count=sketch.count,
            columns=model.describe(sketch.tallies),
            totals={},
        )


def _binned(state: PartitionWindows, sketch: Sketch, model: ModelBins, texts: Texts) -> Tallies:
    """The sketch's tallies; rows that waited for the bins are in them."""
    if sketch.tallies is None:
        sketch.tallies = model.tallies()
        for rows in sketch.pending:
            size = len(rows["event_time"])
            model.add([sketch.tallies], rows, texts, np.arange(size), np.array([size]))
            state.pending -= size
        sketch.pending = []
    return sketch.tallies


def _keep(
    state: PartitionWindows, sketch: Sketch, columns: Columns, rows: NDArray[np.int64], code: int
) -> None:
    """The rows of one window wait for its bins; a version without a name waits in vain."""
    count = len(rows)
    if code < 0 or state.pending + count > MAX_PENDING_ROWS:
        state.unsummarised += count
        sketch.lost = True
        return
    state.pending += count
    sketch.pending.append({path: values[rows] for path, values in columns.data.items()})
