"""An EventLog that answers first and delivers later: `append` returns when the events are in a local file.

Events that are appended in the same turn of the event loop are one write (and, with `fsync`, one sync, in a
thread, while the next gather). A deliverer sends them to the log in the order in which they came, with the
same ids, and deletes a segment once everything in it is acknowledged. What a process that died left behind is
taken over by whoever starts next; parts of it may have been delivered already, and consumers drop repeats by
their ids.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from models.serving.eventlog import Record, encoded
from models.serving.spool import (
    MAGIC,
    SEGMENT_BYTES,
    Folder,
    Segment,
    SpoolDamaged,
    frame,
    read,
    scan,
)
from schemas.codec import Codec
from schemas.event import Event
from streams.log import LogUnavailable

logger = structlog.get_logger()

MAX_BYTES = 1024 * 1024 * 1024
EARLY_BYTES = 256 * 1024
"""A segment of which everything is delivered makes room for the next from this size on."""
DELIVERY_RECORDS = 500
DELIVERY_BYTES = 1024 * 1024
DELIVERY_S = 60.0
RETRY_S = 0.5
LOG_EVERY_S = 10.0


class Sender(Protocol):
    """Where the spool delivers (`KafkaLog`)."""

    async def send(self, records: Sequence[Record], timeout_s: float) -> None:
        """Returns when all are acknowledged; raises LogUnavailable."""


@dataclass(slots=True)
class _Kept:
    """A segment of this process: how far it is delivered, and how many records are not."""

    segment: Segment
    delivered: int = len(MAGIC)
    records: int = 0
    oldest: float = 0.0
    """When the oldest record that is not delivered was written, or a little before (monotonic, s)."""


class SpooledLog:
    """See the module. `start` before the first append."""

    def __init__(
        self,
        root: Path,
        codec: Codec,
        sender: Sender,
        max_bytes: int = MAX_BYTES,
        fsync: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._root = root
        self._codec = codec
        self._sender = sender
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._segment_bytes = segment_bytes
        self._folder: Folder | None = None
        self._orphans: deque[tuple[Folder, Path]] = deque()
        self._orphan_bytes = 0
        self._kept: deque[_Kept] = deque()
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._written: asyncio.Future[None] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._deliverer: asyncio.Task[None] | None = None
        self.problem: str | None = None
        self.refused = 0
        """Appends that found no room."""
        self.delivered = 0
        """Records delivered so far."""

    @property
    def depth(self) -> int:
        """Records of this process that are not delivered."""
        return sum(one.records for one in self._kept)

    @property
    def bytes(self) -> int:
        """What is not delivered, in bytes; with what dead processes left behind."""
        return self._orphan_bytes + sum(one.segment.size - one.delivered for one in self._kept)

    @property
    def age_s(self) -> float:
        """How long the oldest record waits, at most."""
        waiting = [one.oldest for one in self._kept if one.records]
        return time.monotonic() - min(waiting) if waiting else 0.0

    def start(self) -> None:
        """Take over what dead processes left, and begin to deliver; raises OSError."""
        self._root.mkdir(parents=True, exist_ok=True)
        for folder in Folder.orphans(self._root):
            segments = folder.segments()
            if not segments:
                folder.leave()
            for path in segments:
                self._orphans.append((folder, path))
                self._orphan_bytes += path.stat().st_size
        if self._orphans:
            logger.info("spool taken over", segments=len(self._orphans), bytes=self._orphan_bytes)
        self._folder = Folder.make(self._root)
        self._kept.append(_Kept(self._folder.new_segment(self._fsync)))
        self._work.set()
        self._deliverer = asyncio.create_task(self._deliver())

    async def append(self, events: Sequence[Event], timeout_s: float) -> None:
        """See EventLog: returns when the events are in the file; raises LogUnavailable without room."""
        if not events:
            return
        frames = [frame(record) for record in encoded(self._codec, events)]
        size = sum(map(len, frames))
        if self.bytes + self._gathered_bytes + size > self._max_bytes:
            self.refused += 1
            raise LogUnavailable(f"the spool is full ({self._max_bytes:,} bytes wait for the log)")
        self._gathered += frames
        self._gathered_bytes += size
        if self._written is None:
            self._written = asyncio.get_running_loop().create_future()
            self._written.add_done_callback(_seen)
        written = self._written
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(written)
        except TimeoutError:
            raise LogUnavailable(f"the disk did not take the events in {timeout_s:.0f} s") from None

    async def close(self, timeout_s: float = 3.0) -> None:
        """Deliver what can be in time; what cannot stays for whoever starts next."""
        deadline = time.monotonic() + timeout_s
        while (self.depth or self._orphans) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for task in (self._writing, self._deliverer):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        for one in self._kept:
            if one.records:
                one.segment.close()
            else:
                one.segment.remove()
        self._kept.clear()
        for folder in {id(each): each for each, _ in self._orphans}.values():
            folder.leave()
        self._orphans.clear()
        if self._folder is not None:
            self._folder.leave()

    async def _write(self) -> None:
        """What has gathered, until nothing has: one write and one sync for all of a turn."""
        while self._gathered:
            data, count = b"".join(self._gathered), len(self._gathered)
            written, self._written = self._written, None
            self._gathered, self._gathered_bytes = [], 0
            assert written is not None
            try:
                one = await self._open_segment()
                one.segment.write(data)
                one.oldest = one.oldest if one.records else time.monotonic()
                one.records += count
                self._work.set()
                if self._fsync:
                    await asyncio.to_thread(one.segment.sync)
            except OSError as error:
                self.refused += 1
                self.problem = f"the spool cannot be written: {error.strerror or error}"
                written.set_exception(LogUnavailable(self.problem))
            else:
                self.problem = None
                written.set_result(None)

    async def _open_segment(self) -> _Kept:
        """The one to write to; raises OSError."""
        assert self._folder is not None
        last = self._kept[-1]
        limit = self._segment_bytes if last.records else min(EARLY_BYTES, self._segment_bytes)
        if last.segment.size >= limit:
            made = await asyncio.to_thread(self._folder.new_segment, self._fsync)
            self._kept.append(_Kept(made))
            self._drop_delivered()
        return self._kept[-1]

    async def _deliver(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                while self._orphans:
                    await self._deliver_orphan()
                while self._kept[0].records:
                    await self._deliver_some(self._kept[0])
                    self._drop_delivered()
            except OSError as error:
                logger.error("spool cannot be read; tried again", reason=str(error))
                await asyncio.sleep(RETRY_S)
                self._work.set()

    async def _deliver_some(self, one: _Kept) -> None:
        data = one.segment.read(one.delivered, DELIVERY_BYTES)
        at, records = 0, []
        for place, record in scan(data):
            at = place
            records.append(record)
            if len(records) == DELIVERY_RECORDS:
                break
        if not records:
            self._put_aside(one)
            return
        since = time.monotonic()
        await self._insist(records)
        one.delivered += at
        one.records -= len(records)
        one.oldest = since
        self.delivered += len(records)

    def _put_aside(self, one: _Kept) -> None:
        """Keep a segment that cannot be read as it was written for whoever mends it."""
        logger.error(
            "spool segment damaged: put aside", path=str(one.segment.path), lost=one.records
        )
        one.segment.path.rename(one.segment.path.with_suffix(".damaged"))
        assert self._folder is not None
        if one is self._kept[-1]:
            self._kept.append(_Kept(self._folder.new_segment(self._fsync)))
        one.records = 0
        self._drop_delivered()

    def _drop_delivered(self) -> None:
        """Remove segments that are delivered and not written to any more."""
        while len(self._kept) > 1 and not self._kept[0].records:
            self._kept.popleft().segment.remove()

    async def _deliver_orphan(self) -> None:
        folder, path = self._orphans[0]
        size = path.stat().st_size
        try:
            records, torn = await asyncio.to_thread(read, path)
        except SpoolDamaged as error:
            logger.error("spool segment put aside", reason=str(error))
            path.rename(path.with_suffix(".damaged"))
        else:
            for start in range(0, len(records), DELIVERY_RECORDS):
                await self._insist(records[start : start + DELIVERY_RECORDS])
            self.delivered += len(records)
            self._finish_orphan(folder, path, torn)
        self._orphan_bytes -= size
        self._orphans.popleft()
        if not any(other is folder for other, _ in self._orphans):
            folder.leave()

    def _finish_orphan(self, folder: Folder, path: Path, torn: int) -> None:
        if torn and path != folder.segments()[-1]:
            # Only the last write of a process can be cut off; this is something else.
            logger.error("spool segment damaged: put aside", path=str(path), bytes=torn)
            path.rename(path.with_suffix(".damaged"))
            return
        if torn:
            logger.info("torn tail of a spool cut off: nobody had an answer to it", bytes=torn)
        path.unlink()

    async def _insist(self, records: Sequence[Record]) -> None:
        """Send until acknowledged."""
        told = 0.0
        while records:
            try:
                await self._sender.send(records, DELIVERY_S)
                return
            except LogUnavailable as error:
                if time.monotonic() - told > LOG_EVERY_S:
                    told = time.monotonic()
                    logger.warning("spool waits for the log", depth=self.depth, reason=str(error))
                await asyncio.sleep(RETRY_S)


def _seen(written: asyncio.Future[None]) -> None:
    """Whoever waited may be gone by now: no warning about an exception that nobody looked at."""
    if not written.cancelled():
        written.exception()
