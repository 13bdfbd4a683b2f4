"""Quix Streams: its windows per partition, their state in RocksDB; partitions are merged at the end.

The topic's keys are the events' ids. Windows are per key, and `group_by` would send every event through
another topic; so all events get one key, and a window's value holds the histograms of all models.
"""

from __future__ import annotations

import os
import pickle
from array import array
from pathlib import Path
from typing import Any

import numpy as np
from quixstreams import Application
from quixstreams.dataframe.windows.aggregations import Aggregator
from quixstreams.models import Deserializer
from quixstreams.state.rocksdb import RocksDBOptions

from benchmarks.drift_windows.counting import Scorer
from benchmarks.drift_windows.job import Job, Score, finish, now, wait_for_go
from benchmarks.drift_windows.peers.rows import RowBins, RowDecoder


class OneKey(Deserializer):
    def __call__(self, value: bytes, ctx: Any) -> bytes:  # noqa: ARG002 - the base class's
        return b"all"


class Avro(Deserializer):
    def __init__(self, job: Job) -> None:
        super().__init__()
        self._decode = RowDecoder(job)
        self.began = 0.0

    def __call__(self, value: bytes, ctx: Any) -> Any:  # noqa: ARG002
        self.began = self.began or now()
        return self._decode(value)


class Histograms(Aggregator):
    """The models' histograms, one row after another."""

    state_suffix = "histograms"

    def __init__(self, job: Job) -> None:
        self._bins, self._models = RowBins(job), len(job.models)

    def initialize(self) -> array[int]:
        return array("q", bytes(8 * self._bins.size * self._models))

    def agg(self, old: array[int], new: Any, timestamp: int) -> array[int]:  # noqa: ARG002
        _, model, values = new
        self._bins.add(old, values, model * self._bins.size)
        return old

    def result(self, value: array[int]) -> array[int]:
        return value


class Merged:
    """Adds up the partitions of each window; hands in the scores when all are there."""

    def __init__(self, job: Job, avro: Avro) -> None:
        self._job, self._avro = job, avro
        self._shape = len(job.models), len(job.reference), -1
        self._score = Scorer(job)
        self._parts: dict[int, list[Any]] = {}
        self._scores: list[Score] = []

    def __call__(self, window: Any) -> None:
        start = window["start"]
        parts = self._parts.setdefault(start, [])
        parts.append(np.frombuffer(window["value"], np.int64))
        if len(parts) < len(self._job.ends):
            return
        counts = sum(self._parts.pop(start)).reshape(self._shape)
        for model, mine in zip(self._job.models, counts, strict=True):
            self._scores += self._score(model, start, mine)
        if len(self._scores) == self._job.expected:
            finish(self._job, self._avro.began, now(), self._scores)
            os._exit(0)


def main() -> None:
    job = Job.read()
    avro = Avro(job)
    app = Application(
        broker_address=job.bootstrap,
        consumer_group=f"bench-{job.run}",
        auto_offset_reset="earliest",
        commit_interval=5.0,
        use_changelog_topics=False,
        auto_create_topics=False,
        state_dir=Path(job.scores).with_suffix(".state"),
        rocksdb_options=RocksDBOptions(dumps=pickle.dumps, loads=pickle.loads),
        consumer_extra_config={"check.crcs": False, "fetch.wait.max.ms": 50},
        consumer_poll_timeout=0.1,
        loglevel="WARNING",
    )
    topic = app.topic(
        job.topic,
        value_deserializer=avro,
        key_deserializer=OneKey(),
        timestamp_extractor=lambda value, *_: value[0],
    )
    frame = app.dataframe(topic)
    frame = frame.tumbling_window(job.window_ms, job.lateness_ms).agg(value=Histograms(job)).final()
    frame.update(Merged(job, avro))
    wait_for_go()
    app.run()


if __name__ == "__main__":
    main()
