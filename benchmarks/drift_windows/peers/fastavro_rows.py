"""Rows by fastavro, one after another, into the columns that NumPy bins."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import numpy as np

from benchmarks.drift_windows.counting import NumpyWindows
from benchmarks.drift_windows.job import Job


class Rows:
    """Decodes payloads into lists; `flush` bins what they hold."""

    def __init__(self, job: Job) -> None:
        self._schema = fastavro.parse_schema(job.schema, named_schemas={})
        self._models = {name: index for index, name in enumerate(job.models)}
        self._features = job.features
        self.windows = NumpyWindows(job)
        self._clear()

    def _clear(self) -> None:
        self._partition: list[int] = []
        self._time: list[int] = []
        self._model: list[int] = []
        self._score: list[float] = []
        self._vectors: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._time)

    def add(self, partition: int, payload: bytes) -> None:
        body = io.BytesIO(payload)
        body.seek(5)
        event: Any = fastavro.schemaless_reader(body, self._schema)
        self._partition.append(partition)
        self._time.append(event["event_time"])
        self._model.append(self._models[event["model_version"]])
        self._score.append(event["score"])
        self._vectors.append(tuple(event["features"].values()))

    def flush(self) -> None:
        if not self._time:
            return
        vectors = np.array(self._vectors, np.float64)  # None becomes NaN
        self.windows.add(
            np.array(self._partition),
            np.array(self._time),
            np.array(self._model),
            [*vectors.T, np.array(self._score)],
        )
        self._clear()
