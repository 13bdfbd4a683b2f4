"""Says what is due in a thread of its own, so that reading goes on; tells how far may then be committed."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas.event import Event
from streams.log import LogWriter, Partition

P = TypeVar("P")

QUEUED = 64
"""Batches on their way at most: nobody reads faster than what follows is acknowledged."""
WAIT_SECONDS = 0.1
LINGER_SECONDS = 0.25
"""So long an append waits at most for more: small ones cost the brokers more than large reads."""
QUIET_SECONDS = 0.01
"""It waits no longer once nothing has come for so long."""


@dataclass(frozen=True, slots=True)
class Said(Generic[P]):
    """What one batch of a partition led to, and how far the partition is once that is in the log."""

    partition: Partition
    events: Sequence[Event]
    progress: P


class Emitter(Generic[P]):
    """First the log has the events, then the progress is there to be committed.

    It commits nothing itself: what keeps the progress belongs to the owner's thread (see Membership). A crash
    in between repeats the events.
    """

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer
        self._queue: queue.Queue[Said[P] | threading.Event] = queue.Queue(QUEUED)
        self._lock = threading.Lock()
        self._due: dict[Partition, P] = {}
        self._closing = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="emitter", daemon=True)
        self._thread.start()

    def put(self, said: Said[P] | threading.Event) -> None:
        """Waits while much is on its way; raises what went wrong with what was put before."""
        while self._error is None:
            try:
                self._queue.put(said, timeout=0.5)
                return
            except queue.Full:
                continue
        raise self._error

    def flush(self) -> None:
        """Until everything put so far is in the log; raises what went wrong."""
        done = threading.Event()
        self.put(done)
        while not done.wait(0.5):
            if self._error is not None:
                raise self._error

    def take_due(self) -> dict[Partition, P]:
        """Progress behind which all is in the log, new since the last call; raises what went wrong."""
        if self._error is not None:
            raise self._error
        with self._lock:
            due, self._due = self._due, {}
        return due

    def close(self) -> None:
        """Finishes what was put, unless the log is away."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not (self._closing.is_set() and self._queue.empty()):
                batch = self._take()
                said = [item for item in batch if isinstance(item, Said)]
                # Window by window: partitions that were read one after the other are judged together.
                events = sorted((event for item in said for event in item.events), key=_time)
                self._writer.insist(events, self._closing)
                with self._lock:
                    self._due.update({item.partition: item.progress for item in said})
                for item in batch:
                    if isinstance(item, threading.Event):
                        item.set()
        except Exception as error:  # the owner's next call raises it
            self._error = error

    def _take(self) -> list[Said[P] | threading.Event]:
        """What comes until nothing comes any more, or LINGER_SECONDS after the first."""
        batch: list[Said[P] | threading.Event] = []
        wait, until = WAIT_SECONDS, float("inf")
        try:
            while len(batch) < QUEUED:
                batch.append(self._queue.get(timeout=wait))
                if isinstance(batch[-1], threading.Event):  # somebody waits
                    break
                now = time.monotonic()
                until = min(until, now + LINGER_SECONDS)
                wait = max(0.0, min(QUIET_SECONDS, until - now))
        except queue.Empty:
            pass
        return batch


def _time(event: Event) -> int:
    return event.time
