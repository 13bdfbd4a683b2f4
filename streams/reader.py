"""The record reader: partitions of the log as batches of raw records, without a Python object per record."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from schemas.columnar.records import Records
from streams.fetching import ANSWER_BYTES, FetchClient, OffsetGone, OpenPartition
from streams.log import QUIET_SECONDS, LogUnavailable, Partition

__all__ = ["FETCH_BYTES", "QUEUE_BYTES", "OffsetGone", "RecordReader", "read_records"]


FETCH_BYTES = ANSWER_BYTES
QUEUE_BYTES = 1 << 21


class RecordReader:
    """Reads assigned partitions, each from the offset that is said, in bounded memory.

    A poll returns what was fetched in the background, records of committed transactions only. Brokers
    that die and leaders that move are waited out; whatever would leave records out raises. Polls of
    different partitions may run in different threads; the interpreter lock is released while they wait
    and parse.
    """

    def __init__(
        self, bootstrap: str, *, fetch_bytes: int = FETCH_BYTES, queue_bytes: int = QUEUE_BYTES
    ) -> None:
        """A partition is asked for `fetch_bytes` more while less than `queue_bytes` wait, both as compressed
        as the producer left them, and both less where many partitions are read; one batch comes whole,
        however big it is.
        """
        self._client = FetchClient(bootstrap, fetch_bytes, queue_bytes)
        self._lock = threading.Lock()
        self._open: dict[Partition, OpenPartition] = {}
        # Also when nobody calls close(): at the collection of the reader or the interpreter's exit.
        self._close = weakref.finalize(self, _close, self._client, self._open, self._lock)

    def __enter__(self) -> RecordReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def assign(self, topic: str, partition: int, offset: int) -> None:
        """Read this partition from `offset` on; an assigned partition goes there (a seek)."""
        if offset < 0:
            raise ValueError(
                f"cannot read {topic}[{partition}] from offset {offset}: use 0 or more"
            )
        with self._lock:
            self._check_open()
            old = self._open.pop((topic, partition), None)
            if old is not None:
                self._client.stop(old)
            self._open[topic, partition] = self._client.start(topic, partition, offset)

    def revoke(self, topic: str, partition: int) -> None:
        """Read this partition no more; what was fetched of it is dropped."""
        with self._lock:
            self._client.stop(self._part(topic, partition))
            del self._open[topic, partition]

    def assigned(self) -> list[Partition]:
        """The partitions that are being read."""
        with self._lock:
            return list(self._open)

    def poll(
        self, topic: str, partition: int, max_records: int = 10_000, timeout_s: float = 0.0
    ) -> Records | None:
        """The next records of one partition in offset order; None if none came within `timeout_s` seconds.

        Raises OffsetGone if the log no longer holds the next offset, LogUnavailable for what
        waiting does not mend. Both stand until the partition is assigned anew: nothing is skipped.
        """
        part = self._part(topic, partition)
        with part.lock:
            return self._client.poll(part, max_records, timeout_s)

    def wait(self, timeout_s: float) -> bool:
        """Wait until any assigned partition may have something; False if nothing came.

        For one thread that polls all partitions: poll each until it returns None, then wait.
        """
        return self._client.wait(timeout_s)

    def position(self, topic: str, partition: int) -> int:
        """The offset that is read next; at the partition's end, past control and compacted records."""
        return self._part(topic, partition).position

    def at_end(self, topic: str, partition: int) -> bool:
        """True if the last poll saw the end of what is committed, and nothing came since."""
        return self._part(topic, partition).at_end

    def high(self, topic: str, partition: int) -> int:
        """The partition's end offset as of the last fetch; -1 before the first. Asks no broker."""
        return self._part(topic, partition).high

    def queued(self, topic: str, partition: int) -> int:
        """So many records of the partition were fetched and wait to be polled."""
        part = self._part(topic, partition)
        with part.lock:
            return self._client.queued(part)

    def close(self) -> None:
        """Stop reading; records that were handed out stay valid."""
        self._close()

    def _check_open(self) -> None:
        if not self._close.alive:
            raise ValueError("this reader is closed")

    def _part(self, topic: str, partition: int) -> OpenPartition:
        try:
            return self._open[topic, partition]
        except KeyError:
            self._check_open()
            raise KeyError(f"{topic}[{partition}] is not assigned to this reader") from None


def _close(
    client: FetchClient, parts: dict[Partition, OpenPartition], lock: threading.Lock
) -> None:
    with lock:
        while parts:
            client.stop(parts.popitem()[1])
        client.close()


def read_records(
    bootstrap: str,
    start: Mapping[Partition, int],
    end: Mapping[Partition, int],
    max_records: int = 10_000,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Records]:
    """All records of the partitions `end` names, from offset `start` (0 if not named) up to before `end`.

    Offsets ascend within a partition; partitions take turns. `on_progress(done, total)` counts offsets.
    Give each of several processes or threads some of the partitions to read them side by side. Raises
    OffsetGone, and LogUnavailable when nothing comes for QUIET_SECONDS.
    """
    reached = {key: min(start.get(key, 0), stop) for key, stop in end.items()}
    total = sum(end[key] - offset for key, offset in reached.items())
    done = 0
    with RecordReader(bootstrap) as reader:
        for key, offset in reached.items():
            if offset < end[key]:
                reader.assign(*key, offset)
        quiet_since = time.monotonic()
        while open_ := reader.assigned():
            moved = False
            for key in open_:
                records = reader.poll(*key, max_records)
                position = min(reader.position(*key), end[key])
                if position == end[key]:
                    reader.revoke(*key)
                moved |= position > reached[key]
                done += position - reached[key]
                reached[key] = position
                if records is not None and records.offset[0] < end[key]:
                    yield _before(records, end[key])
            if moved:
                on_progress(done, total)
                quiet_since = time.monotonic()
            elif not reader.wait(0.1) and time.monotonic() - quiet_since > QUIET_SECONDS:
                raise LogUnavailable(
                    f"nothing came for {QUIET_SECONDS} s, {len(open_)} partitions open: brokers do not "
                    "answer, or a transaction stays open"
                )
    on_progress(total, total)


def _before(records: Records, end: int) -> Records:
    """Those with an offset below `end`."""
    return records.between(0, int(np.searchsorted(records.offset, end)))
