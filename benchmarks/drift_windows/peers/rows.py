"""One event after another, as a framework hands them on: decoded by fastavro, binned by bisection."""

from __future__ import annotations

import io
from array import array
from bisect import bisect_right
from collections.abc import MutableSequence
from typing import Any

import fastavro

from benchmarks.drift_windows.job import Job


class RowDecoder:
    """Payload -> (event time, model index, values of the columns, None for null)."""

    def __init__(self, job: Job) -> None:
        self._schema = fastavro.parse_schema(job.schema, named_schemas={})
        self._models = {name: index for index, name in enumerate(job.models)}

    def __call__(self, payload: bytes) -> tuple[int, int, list[float | None]]:
        body = io.BytesIO(payload)
        body.seek(5)
        event: Any = fastavro.schemaless_reader(body, self._schema)
        values = [*event["features"].values(), event["score"]]
        return event["event_time"], self._models[event["model_version"]], values


class RowBins:
    """Counts of one window as one flat row: column by column, the missing last in each."""

    def __init__(self, job: Job) -> None:
        self.bins = len(job.reference[0]["edges"]) + 2
        self.columns = len(job.reference)
        self._edges = [
            (first, column["edges"])
            for first, column in zip(
                range(0, self.columns * self.bins, self.bins), job.reference, strict=True
            )
        ]

    @property
    def size(self) -> int:
        return self.columns * self.bins

    def empty(self) -> array[int]:
        return array("q", bytes(8 * self.size))

    def add(self, counts: MutableSequence[int], values: list[float | None], first: int = 0) -> None:
        """`first`: where the row begins in `counts`."""
        missing = self.bins - 1
        for (begin, edges), value in zip(self._edges, values, strict=True):
            place = missing if value is None else bisect_right(edges, value)
            counts[first + begin + place] += 1
