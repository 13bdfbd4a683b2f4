"""The consumer loop of the history: read, decode, store, remember; again after every failure."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from consumers.history.blocks import DeadLetter
from consumers.history.consumer import LogReader, LogUnavailable
from consumers.history.dead_letters import DeadLetterQueue, DeadLettersUnacknowledged
from consumers.history.metrics import HistoryMetrics
from consumers.history.record import Partition
from consumers.history.sink import Batch, BatchDecoder, Decoder
from consumers.history.store import Store, StoreUnavailable
from schemas.catalogue import Topic

log = logging.getLogger("driftlog.history")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0
LOOK_FOR_PARTITIONS_S = 3.0
LOGGED_LETTERS = 5
"""Dead letters of one batch that are logged one by one."""


class LogRecreated(Exception):
    """The stored rows come from another log than the one that is there now."""


class Stopping(Exception):
    """The service was told to stop while it waited."""


class HistoryRunner:
    """Keeps the store up to date with the log until `stop` is set."""

    def __init__(
        self,
        topics: Sequence[Topic],
        decoder: Decoder,
        reader: LogReader,
        store: Store,
        dead_letters: DeadLetterQueue,
        metrics: HistoryMetrics,
        stop: threading.Event,
    ) -> None:
        self._batches = BatchDecoder(decoder, topics)
        self._names = frozenset(topic.name for topic in topics)
        self._reader = reader
        self._store = store
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._stop = stop
        self._next: dict[Partition, int] = {}
        self._topic_ids: dict[str, str] = {}
        self._waiting: dict[Partition, tuple[float, float]] = {}  # -> (resume at, pause)
        self._looked_at = 0.0

    def run(self) -> None:
        """Returns when `stop` is set and the batch in hand is stored, or raises what cannot be retried."""
        try:
            self._again(lambda: self._store.prepare(self._batches.tables.values()))
            self._again(self._find_partitions)
            while not self._stop.is_set():
                self._turn()
            self._metrics.state("stopped")
        except Stopping:
            self._metrics.state("stopped")
        except Exception as error:
            self._metrics.state("failed", " ".join(str(error).split()))
            raise
        finally:
            self._reader.close()

    def _turn(self) -> None:
        if time.monotonic() - self._looked_at > LOOK_FOR_PARTITIONS_S:
            self._look_again()
        self._resume_waiting()
        parts, ended = self._reader.read(self._stop.is_set)
        began = time.monotonic()
        batch = self._batches.decode(parts)
        for partition, end in ended.items():
            if partition not in batch.waiting and end > batch.next_offsets.get(partition, 0):
                self._next[partition] = end  # past transaction markers, which are no records
        for step in batch.steps(self._store, self._dead_letters.publish, self._topic_ids):
            self._again(step)
        self._after(batch)
        if parts:
            self._metrics.batch_took(time.monotonic() - began)

    def _after(self, batch: Batch) -> None:
        for partition, offset in batch.next_offsets.items():
            self._next[partition] = max(offset, self._next.get(partition, 0))
            self._waiting.pop(partition, None)
        for table, rows in batch.tables:
            self._metrics.wrote(table.name, rows.num_rows)
        self._tell_dead(batch.letters)
        if batch.next_offsets:
            self._reader.show_progress(batch.next_offsets)
        for partition, next_offset in self._next.items():
            self._metrics.stored(partition, next_offset, self._reader.end(partition))
        for partition, offset in batch.waiting.items():
            self._wait_for_registry(partition, offset, batch.waiting_for)
        if self._waiting:
            return
        missing = self._names - {topic for topic, _ in self._next}
        problem = f"topics that do not exist yet: {', '.join(sorted(missing))}" if missing else ""
        self._metrics.state("running", problem)

    def _tell_dead(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            self._metrics.dead_letters(letter.at.topic, 1)
        for letter in letters[:LOGGED_LETTERS]:
            log.warning("dead letter %s: %s", letter.at, letter.message)
        if len(letters) > LOGGED_LETTERS:
            more = len(letters) - LOGGED_LETTERS
            log.warning("and %d more dead letters: see driftlog.dead_letters", more)

    def _wait_for_registry(self, partition: Partition, offset: int, why: str) -> None:
        _, pause = self._waiting.get(partition, (0.0, FIRST_PAUSE_S))
        self._reader.wait_at(partition, offset)
        self._waiting[partition] = (time.monotonic() + pause, min(2 * pause, LONGEST_PAUSE_S))
        self._metrics.retried()
        self._metrics.state("waiting", why)
        log.warning("%s[%d]@%d waits for the schema registry: %s", *partition, offset, why)

    def _resume_waiting(self) -> None:
        now = time.monotonic()
        for partition, (resume_at, pause) in self._waiting.items():
            if resume_at <= now:
                self._reader.go_on(partition)
                self._waiting[partition] = (float("inf"), pause)

    def _look_again(self) -> None:
        try:
            self._find_partitions()
        except (LogUnavailable, StoreUnavailable) as error:
            log.info("cannot look for new partitions: %s", error)
            self._looked_at = time.monotonic()

    def _find_partitions(self) -> None:
        """Assign every partition, each from where the store (or this process) stands."""
        found = self._reader.partitions()
        self._looked_at = time.monotonic()
        new = found - self._next.keys()
        if not new:
            return
        stored = self._store.positions()
        ids = self._reader.topic_ids(topic for topic, _ in new)
        places = dict(self._next)
        for partition in sorted(new):
            topic_id, next_offset = stored.get(partition, ("", 0))
            if topic_id and topic_id != ids[partition[0]]:
                raise LogRecreated(
                    f"topic {partition[0]} was deleted and made again since the history was written:"
                    " delete the history's folder, and it is rebuilt from the log"
                )
            for offset in self._store.dead_letters_from(*partition, next_offset):
                self._dead_letters.mark_sent(*partition, offset)
            places[partition] = next_offset
        self._topic_ids |= ids
        for partition in self._waiting:
            self._reader.go_on(partition)
        self._reader.assign(places)
        self._next, self._waiting = places, {}

    def _again(self, step: Callable[[], None]) -> None:
        """Do `step`, again and again with longer pauses, until it succeeds; raises Stopping."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                return step()
            except (StoreUnavailable, LogUnavailable, DeadLettersUnacknowledged) as error:
                why = " ".join(str(error).split())
            log.warning("will try again in %.1f s: %s", pause, why)
            self._metrics.retried()
            self._metrics.state("waiting", why)
            if self._stop.wait(pause):
                raise Stopping
            pause = min(2 * pause, LONGEST_PAUSE_S)
