"""Input windows fed event by event: the same pure function, for simulation and replay of decoded events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.catalogue import MODEL_VERSIONS
from schemas.columnar import Columns, Kind
from schemas.columnar.columns import NULL_CODE
from schemas.event import Event
from streams.canonical import transient
from streams.task import Task
from streams.window_bins import ModelBins
from streams.windows import PartitionWindows, WindowFold


@dataclass
class WindowState:
    partitions: dict[int, PartitionWindows] = field(default_factory=dict)
    models: dict[str, ModelBins] = transient(default_factory=dict)
    texts: dict[str, dict[str, int]] = transient(default_factory=dict)
    """Path -> text -> code."""
    due: list[Event] = transient(default_factory=list)
    """What the last applied batch closed or restated."""


class InputWindows:
    """Reactor: PredictionMade + ModelRegistered -> SketchTaken(kind='inputs'), see `WindowFold`."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.name = f"{task.name}.windows"
        self._fold = WindowFold(task)
        self._projection = self._fold.projection
        self.topics = (self._fold.topic, MODEL_VERSIONS)

    def initial(self) -> WindowState:
        return WindowState()

    def apply(self, state: WindowState, batch: Sequence[Event]) -> WindowState:
        state.due = []
        rows: dict[int, list[Event]] = {}
        for event in batch:
            if event.topic == self._fold.topic:
                rows.setdefault(event.at.partition if event.at else 0, []).append(event)
            elif event.data["task"] == self.task.name:
                self._absorb(state, rows)
                self._registered(state, event)
        self._absorb(state, rows)
        return state

    def react(self, state: WindowState, event: Event) -> list[Event]:  # noqa: ARG002
        return state.due

    def _absorb(self, state: WindowState, rows: dict[int, list[Event]]) -> None:
        for partition, events in rows.items():
            mine = state.partitions.setdefault(partition, PartitionWindows())
            columns = _columns(events, self._projection, state.texts)
            ids = [event.id for event in events]
            state.due += self._fold.absorb(
                mine, columns, self._texts(state), state.models, ids.__getitem__
            )
        rows.clear()

    def _registered(self, state: WindowState, event: Event) -> None:
        state.models.setdefault(event.data["model_version"], ModelBins(event.data["reference"]))
        for partition, mine in state.partitions.items():
            state.due += self._fold.release(mine, partition, self._texts(state), state.models)

    @staticmethod
    def _texts(state: WindowState) -> Mapping[str, Sequence[str]]:
        return {path: list(codes) for path, codes in state.texts.items()}


def _columns(
    events: Sequence[Event], projection: Mapping[str, Kind], texts: dict[str, dict[str, int]]
) -> Columns:
    """The columns that `projection` names, except ids: repeats never get here."""
    first = events[0]
    offsets = [event.at.offset if event.at else 0 for event in events]
    recorded = np.fromiter((event.recorded_ms for event in events), np.int64, len(events))
    columns = Columns(
        first.topic,
        first.at.partition if first.at else 0,
        np.asarray(offsets, np.int64),
        recorded,
    )
    for path, kind in projection.items():
        if kind != "id":
            values = [_at(event.data, path) for event in events]
            columns.data[path] = _array(values, kind, texts.setdefault(path, {}))
    return columns


def _at(data: Mapping[str, Any], path: str) -> Any:
    for name in path.split("."):
        data = data.get(name)  # type: ignore[assignment]
    return data


def _array(values: Sequence[Any], kind: Kind, codes: dict[str, int]) -> NDArray[Any]:
    if kind == "double":
        return np.asarray(values, np.float64)  # None becomes NaN
    if kind == "long":
        return np.asarray(values, np.int64)
    if kind == "text":
        return np.array(values, object)
    found = (NULL_CODE if v is None else codes.setdefault(v, len(codes)) for v in values)
    return np.fromiter(found, np.int32, len(values))
