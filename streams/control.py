"""The Faust runner: the control plane's processors, where rates are low and decisions are made.

One processor per topic puts its records in a queue; what has come by then goes, in order, to the same pure
reactors that replay runs, and what they answer is acknowledged by the log, all together, before the records
count as done (at least once; ids derived from causes do the rest). Windows are closed by the folds on
event time, never by Faust's clock.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import faust
import structlog
from faust.types import EventT, StreamT

from infra import kafka_security
from schemas.codec import Codec
from schemas.event import Event, Position
from streams.faust_transport import Transport
from streams.fold import Projector
from streams.lag import LagMeter
from streams.log import LogWriter, decode_value
from streams.recovery import CheckpointKeeper, state_hashes

logger = structlog.get_logger()
HASH_SECONDS = 5.0
LAG_SECONDS = 5.0
QUEUED = 512
"""Records that wait to be reacted to, at most; as many are answered together."""
LINGER_SECONDS = 0.25
"""So long an answer waits at most for more to answer with it."""
QUIET_SECONDS = 0.005
"""It waits no longer once nothing has come for so long."""


class ControlPlane:
    """A Faust app around one projector."""

    def __init__(
        self,
        bootstrap: str,
        codec: Codec,
        group: str,
        projector: Projector,
        data: Path,
        checkpoints: Path | None = None,
    ) -> None:
        """`data` is Faust's folder."""
        self._codec = codec
        self._projector = projector
        self._lock = asyncio.Lock()
        self._queue: asyncio.Queue[EventT[bytes]] = asyncio.Queue(QUEUED)
        self._writer = LogWriter(bootstrap, codec)
        self._stopping = threading.Event()
        self._keeper = CheckpointKeeper(bootstrap, checkpoints) if checkpoints else None
        self._meter = LagMeter(bootstrap, group, interval_s=LAG_SECONDS)
        self._hashed_events = -1
        self.app = faust.App(
            group,
            broker=[f"kafka://{address}" for address in bootstrap.split(",")],
            **kafka_security.security().faust(),
            datadir=str(data),
            processing_guarantee="at_least_once",
            web_enabled=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            key_serializer="raw",
            value_serializer="raw",
            consumer_auto_offset_reset="earliest",
            broker_commit_interval=1.0,
            broker_session_timeout=10.0,
            broker_heartbeat_interval=2.0,
            stream_wait_empty=False,
            loghandlers=[],
        )
        self.app.transport = Transport(self.app.conf.broker_consumer, self.app)
        for topic in projector.topics:
            self._processor(topic)
        self.app.task(self._work)
        self.app.timer(interval=HASH_SECONDS)(self._state_hashes)

    def run(self) -> None:
        """Until SIGTERM or SIGINT."""
        worker = faust.Worker(self.app, loglevel="WARN", quiet=True, redirect_stdouts=False)
        worker.spinner = None  # it would have every debug message made, to turn by them
        worker.execute_from_commandline()

    def _processor(self, name: str) -> None:
        topic = self.app.topic(name, key_serializer="raw", value_serializer="raw")

        async def processor(stream: StreamT[bytes]) -> None:
            async for record in stream.noack().events():  # type: ignore[attr-defined]
                await self._queue.put(record)

        self.app.agent(topic, name=f"processor.{name}")(processor)

    async def _work(self) -> None:
        """Queue -> reactors -> log. What goes wrong ends the process: Faust would count records as done."""
        try:
            while True:
                self._meter.observe(self._projector.offsets)
                records = await self._come()
                await self._answer(records)
                for record in records:
                    record.ack()
        except Exception:
            logger.exception("the control plane cannot go on")
            os._exit(1)
        finally:
            self._stopping.set()

    async def _come(self) -> list[EventT[bytes]]:
        """What comes until nothing comes any more, or LINGER_SECONDS after the first."""
        records = [await self._queue.get()]
        until = time.monotonic() + LINGER_SECONDS
        while len(records) < QUEUED and time.monotonic() < until:
            if self._queue.empty():
                await asyncio.sleep(QUIET_SECONDS)
                if self._queue.empty():
                    break
            records.append(self._queue.get_nowait())
        return records

    async def _answer(self, records: Sequence[EventT[bytes]]) -> None:
        async with self._lock:  # the folds' state has one writer
            await asyncio.to_thread(self._react, records)

    def _react(self, records: Sequence[EventT[bytes]]) -> None:
        answers: list[Event] = []
        for record in records:
            message = record.message
            at = Position(message.topic, message.partition, message.offset)
            item = decode_value(self._codec, at, message.value, int(message.timestamp * 1000))
            if isinstance(item, Event):
                answers += self._projector.react(item)
            else:
                logger.warning("undecodable record skipped", at=str(at), why=str(item.error))
                self._projector.skip_to(at.topic, at.partition, at.offset + 1)
        self._writer.insist(answers, self._stopping)

    async def _state_hashes(self) -> None:
        async with self._lock:
            if self._projector.events != self._hashed_events:
                await asyncio.to_thread(self._hash)

    def _hash(self) -> None:
        self._writer.insist(state_hashes(self._projector), self._stopping)
        self._hashed_events = self._projector.events
        if self._keeper is not None:
            self._keeper.keep(self._projector)
