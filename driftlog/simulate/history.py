"""A history as served: every vector, computed once by the fold that the live worker runs.

Features do not depend on the model that answers (rates come from labels, weather from observations), so all
policies that are tried on a history share this pass. The log is in memory and nobody lags: a vector holds
all that was known at its event time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset
from schemas.catalogue import features_topic, labels_topic, predictions_topic
from schemas.event import Event
from streams.features import Blob, FeatureFold, assemble, blob_keys
from streams.task import DAY_MS, Ask, Moment, Observation, Task, Truth

UNLABELLED = -1


@dataclass(frozen=True)
class History:
    """n predictions in the order of their time, and when which label came.

    `data.labels` is -1 and `data.label_times` the largest integer where no label ever comes.
    `moments`: what happened, in order: (row, False) a prediction is asked for, (row, True) its label comes.
    """

    data: Dataset
    moments: list[tuple[int, bool]]

    def known(self, since: int, until: int) -> Dataset:
        """The snapshot that a trainer takes: predictions since `since` with labels before `until` (ms)."""
        times = self.data.times
        return self.data.where((times >= since) & (self.data.label_times < until))


def read_history(
    task: Task, days: int | None = None, progress: Callable[[int], None] = lambda time: None
) -> History:
    """Fold the source's moments, at most of its first `days` days; `progress` is told the event time."""
    assert task.source is not None
    reader = _Reader(task)
    for moment in _first_days(task.source(), days):
        reader.see(moment)
        progress(moment.time)
    return reader.history()


def _first_days(moments: Iterator[Moment], days: int | None) -> Iterator[Moment]:
    first = next(moments)
    yield first
    end = float("inf") if days is None else first.time + days * DAY_MS
    yield from takewhile(lambda moment: moment.time < end, moments)


class _Reader:
    """The feature fold, and an online store that is kept as the worker keeps Redis: changed blobs only."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._fold = FeatureFold(task, partitions=1)
        self._state = self._fold.initial()
        self._store: dict[str, Blob] = {}
        self._topics = (
            predictions_topic(task.name),
            labels_topic(task.name),
            features_topic(task.name),
        )
        self._rows: dict[str, int] = {}
        self._times: list[int] = []
        self._vectors: dict[str, list[Any]] = {name: [] for name in task.vector}
        self._labels: dict[int, tuple[int, int]] = {}
        self._moments: list[tuple[int, bool]] = []

    def see(self, moment: Moment) -> None:
        if isinstance(moment, Ask):
            self._ask(moment)
        elif isinstance(moment, Truth):
            self._truth(moment)
        else:
            self._observation(moment)

    def _ask(self, ask: Ask) -> None:
        changed = self._state.dirty.intersection(blob_keys(self._task, ask.instance))
        for key in changed:
            self._state.dirty.discard(key)
            self._store[key] = self._state.blob(key) or []
        vector = assemble(self._task, ask.instance, ask.time, self._store.get)
        row = self._rows[ask.id] = len(self._times)
        self._times.append(ask.time)
        for name, value in vector.items():
            self._vectors[name].append(value)
        self._moments.append((row, False))
        self._apply(0, "PredictionMade", ask.id, ask.time, features=vector)

    def _truth(self, truth: Truth) -> None:
        row = self._rows[truth.prediction_id]
        self._labels[row] = truth.time, truth.label
        self._moments.append((row, True))
        self._apply(
            *(1, "LabelObserved", f"label-{row}", truth.time),
            prediction_id=truth.prediction_id,
            label=truth.label,
        )

    def _observation(self, seen: Observation) -> None:
        self._apply(
            *(2, "FeatureObserved", f"{seen.key}-{seen.time}", seen.time),
            entity=seen.entity,
            key=seen.key,
            values=seen.values,
        )

    def _apply(self, topic: int, type_: str, id_: str, time: int, **fields: Any) -> None:
        data = {"event_id": id_, "event_time": time, "caused_by": None, **fields}
        self._fold.apply(self._state, (Event(self._topics[topic], type_, data),))

    def history(self) -> History:
        count = len(self._times)
        labels = np.full(count, UNLABELLED, dtype=np.int8)
        label_times = np.full(count, np.iinfo(np.int64).max)
        for row, (time, label) in self._labels.items():
            labels[row], label_times[row] = label, time
        data = Dataset(
            np.array(list(self._rows), dtype=object),
            np.array(self._times, dtype=np.int64),
            labels,
            label_times,
            {name: self._column(name) for name in self._vectors},
        )
        return History(data, self._moments)

    def _column(self, name: str) -> NDArray[Any]:
        kind = np.float64 if self._task.vector[name] == "double" else object
        return np.array(self._vectors[name], dtype=kind)
