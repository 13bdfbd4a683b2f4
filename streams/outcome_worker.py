"""The live outcome fold of a task: labels meet their predictions on disk, in bounded memory.

First the log has the statements, then Kafka has the offsets, then the local store stands at them. A crash
in between repeats statements with the same ids; a store that was lost is folded from the log again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog
from confluent_kafka import KafkaException, TopicPartition

from schemas.codec import Codec
from schemas.columnar import Records
from schemas.columnar.decoder import Bad
from schemas.event import Event
from streams import log
from streams.lag import LagMeter
from streams.outcome_columns import OutcomeColumns
from streams.outcome_run import OutcomeRun
from streams.outcome_store import OutcomeStore, open_outcomes
from streams.reader import RecordReader
from streams.recovery import state_hashed
from streams.task import Task

logger = structlog.get_logger()
MAX_RECORDS = 8_000
COMMIT_SECONDS = 0.5
HASH_SECONDS = 5.0
IDLE_SECONDS = 0.05
MEMORY_BYTES = 32 << 20
"""Of what waits, so much is in memory; the rest is in the local store."""

OnBad = Callable[[log.Partition, Sequence[Bad]], None]


class OutcomeWorker:
    """One a task. `run` is for a thread; the rest may be asked from others."""

    def __init__(
        self,
        bootstrap: str,
        codec: Codec,
        task: Task,
        partitions: int,
        group: str,
        folder: Path,
        on_bad: OnBad = lambda partition, bad: None,
    ) -> None:
        """`group` keeps how far was stated, `folder` the local store. Raises StoreInUse or LogUnavailable."""
        self.task = task
        self._fold = OutcomeColumns(task, partitions)
        self._on_bad = on_bad
        self._writer = log.LogWriter(bootstrap, codec)
        self._meter = LagMeter(bootstrap, group)
        self._consumer = log.make_consumer(bootstrap, group)
        self._keys = log.partitions_of(self._consumer, self._fold.topics)
        stated = log.committed_offsets(self._consumer, self._keys)
        self._store: OutcomeStore = open_outcomes(folder, self._fold, stated, MEMORY_BYTES)
        if self._store.discarded:
            logger.warning("local store made anew", task=task.name, why=self._store.discarded)
        self._run = OutcomeRun(self._fold, codec, self._store.state, self._store.offsets, stated)
        self._reader = RecordReader(bootstrap)
        self._due: list[Event] = []
        self._committed = dict(stated)
        self._committed_at = self._hashed_at = time.monotonic()
        self._hashed: log.Offsets = {}

    @property
    def waiting(self) -> int:
        """Predictions without a label."""
        return len(self._store.state.join.waiting_predictions)

    @property
    def counts(self) -> dict[str, int]:
        """matched, unmatched (predictions aged out), unused and late labels: since the log's beginning."""
        counts = self._store.state.join.counts
        return {name: getattr(counts, name) for name in ("matched", "unmatched", "unused", "late")}

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; raises LogUnavailable and whatever else ends the work."""
        for key, offset in self._run.begins().items():
            self._reader.assign(*key, offset)
        try:
            while not stop.is_set():
                moved = self._advance()
                self._meter.observe(self._run.offsets())
                if time.monotonic() - self._committed_at > COMMIT_SECONDS:
                    self._commit(stop)
                if not moved:
                    self._while_idle(stop)
                    self._reader.wait(IDLE_SECONDS)
            self._commit(stop)
            self._hash(stop)
        finally:
            self._reader.close()
            self._meter.close()
            self._consumer.close()
            self._store.close()

    def _advance(self) -> bool:
        ended = set()
        for key in self._run.wanted():
            records = self._reader.poll(*key, max_records=MAX_RECORDS)
            if records is not None and len(records):
                self._offer(key, records)
            elif self._reader.at_end(*key):
                ended.add(key)
                self._run.pass_over(key, self._reader.position(*key))
        said = self._run.advance(ended)
        self._due += said or []
        return said is not None

    def _offer(self, key: log.Partition, records: Records) -> None:
        bad = log.patiently(lambda: self._run.offer(records))
        if bad:
            self._on_bad(key, bad)

    def _commit(self, stop: threading.Event) -> None:
        self._committed_at = time.monotonic()
        offsets = self._run.offsets()
        if self._run.silent or offsets == self._committed:
            return
        self._writer.insist(self._due, stop)
        self._due.clear()
        wanted = [TopicPartition(*key, offset) for key, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=wanted, asynchronous=False)
        except KafkaException as error:  # the next commit says the same and more
            logger.warning("commit failed", error=error.args[0].str())
            return
        self._store.commit(offsets)
        self._committed = offsets

    def _while_idle(self, stop: threading.Event) -> None:
        moved = self._run.offsets() != self._hashed
        if moved and time.monotonic() - self._hashed_at > HASH_SECONDS:
            self._hash(stop)

    def _hash(self, stop: threading.Event) -> None:
        if self._run.silent:
            return
        offsets = self._run.offsets()
        sha256 = self._fold.fingerprint(self._store.state)
        stated = state_hashed(self._fold.name, sha256, offsets, self._run.events)
        self._writer.insist([*self._due, stated], stop)
        self._due.clear()
        self._hashed_at, self._hashed = time.monotonic(), offsets
