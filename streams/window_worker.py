"""The window worker: shares the partitions of its tasks with the other members of its group.

A partition can be taken over at any moment: what is stated follows from its records alone, and the group's
committed offset carries what a restart needs to know. A worker that lost a partition without noticing only
repeats, with the same ids, what the new owner says.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from schemas.catalogue import predictions_topic
from schemas.codec import Codec
from schemas.columnar.decoder import Bad
from schemas.event import Event
from streams import log
from streams.emitter import Emitter, Said
from streams.membership import Change, Fenced, Membership
from streams.reader import RecordReader
from streams.references import References
from streams.task import Task
from streams.window_hashes import state_hash
from streams.window_partition import Progress, WindowPartition

logger = structlog.get_logger()
MAX_RECORDS = 12_000
HASH_SECONDS = 5.0
LOOK_SECONDS = 1.0
"""How often to look for the registration of a version that rows wait for."""
IDLE_SECONDS = 0.02
COMMIT_SECONDS = 0.25

OnBad = Callable[[log.Partition, Sequence[Bad]], None]


@dataclass
class Owned:
    """A partition that this worker has, and what it knows of it; one thread at a time."""

    run: WindowPartition
    lock: threading.Lock = field(default_factory=threading.Lock)
    lost: bool = False
    hashed_at: float = 0.0
    hashed: int = -1
    unknown: list[str] = field(default_factory=list)
    looked_at: float = 0.0


class WindowWorker:
    """One member of the group; `threads` partitions are worked on side by side.

    By default half as many as there are cores, four at most: reading takes a core, too, and threads that wait
    for the interpreter lock cost more than they bring. `member` names it across restarts (see Membership).
    """

    def __init__(
        self,
        bootstrap: str,
        codec: Codec,
        tasks: Sequence[Task],
        group: str,
        *,
        member: str = "",
        threads: int | None = None,
        on_bad: OnBad = lambda partition, bad: None,
    ) -> None:
        self._codec = codec
        self._tasks = {predictions_topic(task.name): task for task in tasks}
        self._on_bad = on_bad
        self._threads = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
        self._references = References(bootstrap, codec)
        self._reader = RecordReader(bootstrap)
        self._membership = Membership(
            bootstrap, group, sorted(self._tasks), self._changed, name=member
        )
        self._emitter: Emitter[Progress] = Emitter(log.LogWriter(bootstrap, codec))
        self._committed_at = 0.0
        self.began = 0.0
        """When the first records came (time.monotonic); 0: not yet."""
        self.owned: dict[log.Partition, Owned] = {}
        self._failed: Exception | None = None

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; raises LogUnavailable and whatever else ends the work."""
        self._references.refresh()
        done = threading.Event()
        workers = [
            threading.Thread(target=self._work, args=(done,), name=f"windows-{n}", daemon=True)
            for n in range(self._threads)
        ]
        try:
            for worker in workers:
                worker.start()
            while not stop.is_set() and self._failed is None:
                self._membership.poll(0.0)
                if time.monotonic() - self._committed_at > COMMIT_SECONDS:
                    self._commit()
                stop.wait(IDLE_SECONDS)
        finally:
            done.set()
            for worker in workers:
                worker.join()
            self._membership.close()  # gives the partitions back, what was said committed
            self._emitter.close()
            self._reader.close()
        if self._failed is not None:
            raise self._failed

    def _changed(self, change: Change) -> None:
        """Finish what is given away before anybody else gets it; begin what came."""
        for key in change.revoked | change.lost:
            owned = self.owned.pop(key, None)
            if owned is not None:
                with owned.lock:
                    owned.lost = True
                    self._reader.revoke(*key)
        if change.revoked and self._failed is None:
            self._emitter.flush()
            self._commit()
        for key, committed in self._membership.committed(change.gained).items():
            topic, partition = key
            progress = Progress.of(*committed)
            run = WindowPartition(
                self._tasks[topic], self._codec, partition, self._references.by_version, progress
            )
            self._reader.assign(topic, partition, run.begin)
            self.owned[key] = Owned(run)
            logger.info("partition gained", partition=key, begin=run.begin, stated=progress.stated)

    def _commit(self) -> None:
        """What the log has by now, of what is still ours."""
        owned = self._membership.owned()
        due = {key: said for key, said in self._emitter.take_due().items() if key in owned}
        try:
            self._membership.commit({key: (p.stated, p.metadata) for key, p in due.items()})
        except Fenced as error:  # somebody else goes on from the last commit, and says the same
            logger.warning("not committed: partitions were taken over", error=str(error))
        self._committed_at = time.monotonic()

    def _work(self, done: threading.Event) -> None:
        try:
            while not done.is_set():
                if not self._advance_one():
                    if self.owned:
                        self._reader.wait(IDLE_SECONDS)
                    else:
                        done.wait(IDLE_SECONDS)
        except Exception as error:
            self._failed = self._failed or error

    def _advance_one(self) -> bool:
        """A batch of the partition that is furthest behind in event time and has one; False if none has.

        While more of it is on its way, no other of its topic goes further ahead than a window: so windows
        of different partitions close side by side, and are judged once.
        """
        behind: dict[str, int] = {}
        for key, owned in sorted(self.owned.copy().items(), key=_stream_time):
            topic, at = key[0], owned.run.state.stream_time
            if at > behind.get(topic, at) + self._tasks[topic].window_ms:
                continue
            if not owned.lock.acquire(blocking=False):  # another thread is at it: it moves on
                continue
            try:
                if not owned.lost and self._advance(key, owned):
                    return True
                if not owned.lost and not self._reader.at_end(*key):
                    behind.setdefault(topic, at)
            finally:
                owned.lock.release()
        return False

    def _advance(self, key: log.Partition, owned: Owned) -> bool:
        """One batch of one partition; False if there was nothing."""
        run = owned.run
        records = self._reader.poll(*key, max_records=MAX_RECORDS)
        if records is None or not len(records):
            self._while_idle(key, owned)
            return False
        self.began = self.began or time.monotonic()
        said, bad = log.patiently(lambda: run.take(records))
        if bad:
            self._on_bad(key, bad)
        self._emitter.put(Said(key, [*said, *self._released(owned)], run.progress()))
        return True

    def _while_idle(self, key: log.Partition, owned: Owned) -> None:
        run, now = owned.run, time.monotonic()
        said = self._released(owned)
        passed = self._reader.at_end(*key) and run.pass_over(self._reader.position(*key))
        if run.position != owned.hashed and now - owned.hashed_at > HASH_SECONDS:
            said.append(state_hash(run, self._references.offsets))
            owned.hashed_at, owned.hashed = now, run.position
        if said or passed:
            self._emitter.put(Said(key, said, run.progress()))

    def _released(self, owned: Owned) -> list[Event]:
        """What can be said since versions that rows wait for have been registered.

        A model is registered before it answers, so a new version is looked up at once; one that is not
        there is looked for now and then.
        """
        unknown = owned.run.unknown_versions()
        now = time.monotonic()
        if not unknown or (unknown == owned.unknown and now - owned.looked_at < LOOK_SECONDS):
            return []
        self._references.refresh()
        owned.unknown, owned.looked_at = owned.run.unknown_versions(), now
        return owned.run.release() if owned.unknown != unknown else []


def _stream_time(item: tuple[log.Partition, Owned]) -> tuple[int, log.Partition]:
    return item[1].run.state.stream_time, item[0]
