"""The facts behind a blast radius, read from the history in ClickHouse; small topics from the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from driftlog.blast import Facts, Labels, Observations, Predictions, categories_of
from infra.clickhouse import table_of
from models.history import History
from schemas.catalogue import (
    DEPLOYMENTS,
    MODEL_VERSIONS,
    SNAPSHOTS,
    features_topic,
    labels_topic,
    predictions_topic,
)
from schemas.event import Event
from streams.fold import Projector
from streams.task import Task

Read = Callable[..., Iterable[Event]]
_ENVELOPE = (
    "event_id, toUnixTimestamp64Milli(event_time) AS time, _partition AS part, _offset AS place"
)


def facts_from(history: History, read: Read, task: Task) -> Facts:
    """Every prediction, label and observation of `task`, and its registry; raises HistoryUnavailable.

    `read`: `streams.log.read` of this instance, which takes topics.
    """
    names = categories_of(task)
    features = "".join(f", features_{name}" for name in names)
    made = _rows(history, predictions_topic(task.name), f"model_version{features}")
    about = _rows(history, labels_topic(task.name), "prediction_id")
    observed = any(name for name in task.observed_values)
    told = _rows(history, features_topic(task.name), "entity, key") if observed else None
    fresh = Projector([]).fresh
    registry = [
        event
        for event in read([SNAPSHOTS, MODEL_VERSIONS, DEPLOYMENTS])
        if event.data.get("task") == task.name and fresh(event)
    ]
    of = partial(_of_topic, registry)
    return Facts(
        task,
        Predictions(
            _texts(made, "event_id"),
            _ints(made, "time"),
            _texts(made, "model_version"),
            _ints(made, "part"),
            _ints(made, "place"),
            {name: _texts(made, f"features_{name}") for name in names},
        ),
        Labels(
            _texts(about, "event_id"),
            _texts(about, "prediction_id"),
            _ints(about, "time"),
            _ints(about, "part"),
            _ints(about, "place"),
        ),
        Observations(
            _texts(told, "event_id"),
            _texts(told, "entity"),
            _texts(told, "key"),
            _ints(told, "time"),
        ),
        of(SNAPSHOTS),
        of(MODEL_VERSIONS),
        of(DEPLOYMENTS),
    )


def _of_topic(events: Iterable[Event], topic: str) -> list[Any]:
    return [event.data for event in events if event.topic == topic]


def _rows(history: History, topic: str, columns: str) -> pa.Table:
    return history.query(f"SELECT {_ENVELOPE}, {columns} FROM {table_of(topic)} FINAL")  # noqa: S608 - our names


def _texts(table: pa.Table | None, name: str) -> Any:
    found = [] if table is None else table.column(name).to_pylist()
    made = np.empty(len(found), dtype=object)
    made[:] = found
    return made


def _ints(table: pa.Table | None, name: str) -> Any:
    if table is None:
        return np.zeros(0, np.int64)
    return table.column(name).cast(pa.int64()).to_numpy(zero_copy_only=False)
