"""Appending events from an asyncio service: what `append` returned from is in the log for good.

Each partition has one writer, which sends everything that waits for it as one batch and holds on to the
batch until it is acknowledged: under load, batches grow by themselves. A request that gives up (deadline,
disconnected caller) only stops waiting; what others wait for goes on.
"""

from __future__ import annotations

import asyncio
import math
import time
import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra import kafka_security
from schemas.codec import Codec
from schemas.event import Event
from streams.log import LogUnavailable, record_headers

logger = structlog.get_logger()

BATCH_BYTES = 512 * 1024
BATCH_RECORDS = 2_000
MAX_WAITING = 50_000
"""Records in memory that are not acknowledged: beyond it, requests are refused at once."""
SILENCE_S = 10.0
"""A batch without an answer for so long gets a new producer: the old one may be beyond repair."""
RETRY_S = 0.1
SLOW_S = 0.5
"""A partition whose batch takes so long gets no new records that could as well lie elsewhere."""
STALLED_S = 8.0
"""A batch without its acknowledgement for so long: the log takes no writes (a failover is shorter)."""
TRY_S = 1.0
DOUBT_S = 20.0
"""A request that gave up casts doubt on the log for so long, unless something is acknowledged first."""


class EventLog(Protocol):
    """Where serving writes."""

    @property
    def problem(self) -> str | None:
        """Why events are not acknowledged at the moment; None if they are."""

    async def append(self, events: Sequence[Event], timeout_s: float) -> None:
        """Returns when every event is acknowledged; raises LogUnavailable (then any of them may be)."""


@dataclass(frozen=True, slots=True)
class Record:
    """An event as the log takes it: encoded, with its key and headers; `recorded_ms` is its timestamp."""

    topic: str
    key: bytes
    value: bytes
    headers: Sequence[tuple[str, bytes]]
    recorded_ms: int


def encoded(codec: Codec, events: Sequence[Event]) -> list[Record]:
    """Raises InvalidEvent."""
    now_ms = int(time.time() * 1000)
    return [
        Record(e.topic, codec.key(e), codec.encode(e), record_headers(e), now_ms) for e in events
    ]


@dataclass(slots=True)
class _Group:
    """The events of one append."""

    missing: int
    done: asyncio.Future[None]


@dataclass(slots=True)
class _Doubt:
    """Whether something is known to take no writes: then one try a second goes on, the others do not wait."""

    away: bool = False
    _tried_at: float = -math.inf

    def fail(self) -> None:
        """It took no writes until a deadline."""
        self.away, self._tried_at = True, time.monotonic()

    def check(self, what: str) -> None:
        """Raises LogUnavailable unless this is the try."""
        if not self.away:
            return
        now = time.monotonic()
        if now - self._tried_at < TRY_S:
            raise LogUnavailable(f"{what} is away; it is tried every {TRY_S:.0f} s")
        self._tried_at = now


@dataclass(slots=True, eq=False)
class _Lane:
    """One partition: what waits for it."""

    topic: str
    partition: int
    waiting: deque[tuple[Record, _Group]] = field(default_factory=deque)
    doubt: _Doubt = field(default_factory=_Doubt)
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.Task[None] | None = None
    sent_at: float | None = None
    """When the batch in flight was first sent (monotonic, s)."""

    @property
    def busy(self) -> bool:
        return self.sent_at is not None or bool(self.waiting)


class KafkaLog:
    """An EventLog over aiokafka: acks=all, idempotent, re-sent (same ids) until acknowledged."""

    def __init__(self, bootstrap: str, codec: Codec, silence_s: float = SILENCE_S) -> None:
        self._bootstrap = bootstrap
        self._codec = codec
        self._silence_s = silence_s
        self._producer: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._partitions: dict[str, int] = {}
        self._waiting = 0
        self._discarding: set[asyncio.Task[None]] = set()
        self._gave_up_at = -math.inf
        self._doubt = _Doubt()
        self.replaced = 0
        """Producers given up so far."""

    @property
    def problem(self) -> str | None:
        if self._producer is None:
            return "not connected"
        now = time.monotonic()
        since = [lane.sent_at for lane in self._lanes.values() if lane.sent_at is not None]
        if now - self._gave_up_at > DOUBT_S and now - min(since, default=now) < STALLED_S:
            return None
        return "writes are not acknowledged: fewer brokers than min.insync.replicas may be up"

    def turn(self, topic: str, last: int) -> tuple[int, int] | None:
        """(partition, of how many): the next after `last` whose records do not wait for long already."""
        count = self._partitions.get(topic)
        if count is None:
            return None
        late = time.monotonic() - SLOW_S
        for step in range(1, count + 1):
            partition = (last + step) % count
            lane = self._lanes.get((topic, partition))
            if lane is None or lane.sent_at is None or lane.sent_at > late:
                return partition, count
        return (last + 1) % count, count

    async def connect(self) -> None:
        """Raises KafkaError if no broker answers."""
        async with self._lock:
            self._producer = self._producer or await self._start_producer()

    async def append(self, events: Sequence[Event], timeout_s: float) -> None:
        """See EventLog; raises InvalidEvent, too (then nothing was sent)."""
        await self.send(encoded(self._codec, events), timeout_s)

    async def send(self, records: Sequence[Record], timeout_s: float) -> None:
        """As `append`, of records that are encoded already."""
        if not records:
            return
        if self._waiting + len(records) > MAX_WAITING:
            raise LogUnavailable(f"{self._waiting} events wait for the log already")
        group = _Group(len(records), asyncio.get_running_loop().create_future())
        lanes: dict[_Lane, None] = {}
        try:
            async with asyncio.timeout(timeout_s):
                for topic in {record.topic for record in records}:
                    if topic not in self._partitions:
                        self._doubt.check("the log")
                        await self._know(topic)
                places = [(record, self._lane(record)) for record in records]
                lanes = dict.fromkeys(lane for _, lane in places)
                for lane in lanes:
                    lane.doubt.check(f"partition {lane.partition} of {lane.topic}")
                for record, lane in places:
                    lane.waiting.append((record, group))
                    lane.wake.set()
                self._waiting += len(records)
                await group.done
        except TimeoutError:
            self._gave_up_at = time.monotonic()
            for doubt in [lane.doubt for lane in lanes if lane.busy] if lanes else [self._doubt]:
                doubt.fail()
            message = (
                f"{group.missing} of {len(records)} events not acknowledged in {timeout_s:.0f} s"
            )
            raise LogUnavailable(message) from None
        finally:
            group.done.cancel()  # a writer skips what nobody waits for and was never sent

    async def close(self, timeout_s: float = 3.0) -> None:
        """Flush what waits, then stop."""
        deadline = time.monotonic() + timeout_s
        while self._waiting and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        writers = [lane.writer for lane in self._lanes.values() if lane.writer]
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
        if self._producer is not None:
            self._discard(self._producer)
            self._producer = None
        if self._discarding:
            await asyncio.wait(self._discarding, timeout=2)

    async def _know(self, topic: str) -> None:
        """Learn the partition count of `topic`."""
        while topic not in self._partitions:
            producer = await self._connected()
            try:
                self._partitions[topic] = len(await producer.partitions_for(topic))
                self._doubt.away = False
            except KafkaError:
                await asyncio.sleep(RETRY_S)

    def _lane(self, record: Record) -> _Lane:
        # The partition that librdkafka's default partitioner takes, so that all writers agree.
        partition = zlib.crc32(record.key) % self._partitions[record.topic]
        lane = self._lanes.get((record.topic, partition))
        if lane is None:
            lane = self._lanes[record.topic, partition] = _Lane(record.topic, partition)
            lane.writer = asyncio.create_task(self._write(lane))
        return lane

    async def _write(self, lane: _Lane) -> None:
        while True:
            await lane.wake.wait()
            lane.wake.clear()
            while lane.waiting:
                batch = self._take(lane)
                lane.sent_at = time.monotonic()
                if await self._deliver(lane, batch):
                    self._gave_up_at = -math.inf
                    lane.doubt.away = False
                lane.sent_at = None
                self._waiting -= len(batch)
                for _, group in batch:
                    group.missing -= 1
                    if not group.missing and not group.done.done():
                        group.done.set_result(None)

    def _take(self, lane: _Lane) -> list[tuple[Record, _Group]]:
        batch: list[tuple[Record, _Group]] = []
        size = 0
        while lane.waiting and len(batch) < BATCH_RECORDS and size < BATCH_BYTES // 2:
            record, group = lane.waiting.popleft()
            if group.done.cancelled():
                self._waiting -= 1
                continue
            batch.append((record, group))
            size += len(record.value) + 600  # key and headers
        return batch

    async def _deliver(self, lane: _Lane, batch: list[tuple[Record, _Group]]) -> bool:
        """Send until acknowledged; False if nobody waits any more.

        After a fatal error or long silence the next try has a new producer.
        """
        while batch:
            producer = await self._connected()
            try:
                async with asyncio.timeout(self._silence_s):
                    await self._send(producer, lane, batch)
                    return True
            except TimeoutError:
                why = f"no answer for {self._silence_s:.0f} s"
            except Exception as error:  # whatever it is, the lane must live on
                why = repr(error)
            logger.warning(
                "producer replaced", topic=lane.topic, partition=lane.partition, reason=why
            )
            await self._replace(producer)
            await asyncio.sleep(RETRY_S)
            batch = [one for one in batch if not one[1].done.cancelled()]
        return False

    async def _send(
        self, producer: AIOKafkaProducer, lane: _Lane, batch: list[tuple[Record, _Group]]
    ) -> None:
        """Raises KafkaError. More than one Kafka batch only if the records are large."""
        rest = deque(batch)
        while rest:
            builder = producer.create_batch()
            while rest:
                record, _ = rest[0]
                appended = builder.append(
                    timestamp=record.recorded_ms,
                    key=record.key,
                    value=record.value,
                    headers=record.headers,
                )
                if appended is None:
                    break
                rest.popleft()
            await (await producer.send_batch(builder, lane.topic, partition=lane.partition))

    async def _connected(self) -> AIOKafkaProducer:
        """The producer; connects, however long it takes, if there is none."""
        while True:
            async with self._lock:
                if self._producer is not None:
                    return self._producer
                try:
                    self._producer = await self._start_producer()
                except (KafkaError, OSError, TimeoutError) as error:
                    logger.warning("log unreachable", reason=str(error) or "timeout")
            await asyncio.sleep(RETRY_S)

    async def _start_producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            **kafka_security.security().aiokafka(),
            acks="all",
            enable_idempotence=True,
            linger_ms=0,  # the lanes have gathered what there is
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=3_000,
            metadata_max_age_ms=2_000,
            retry_backoff_ms=50,
        )
        try:
            async with asyncio.timeout(10):
                await producer.start()
        except BaseException:
            self._discard(producer)
            raise
        return producer

    async def _replace(self, broken: AIOKafkaProducer) -> None:
        async with self._lock:
            if self._producer is broken:
                self._producer = None
                self.replaced += 1
                self._discard(broken)

    def _discard(self, producer: AIOKafkaProducer) -> None:
        task = asyncio.create_task(_abandon(producer))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """Stop a producer without waiting for batches that it may never deliver."""
    sender: Any = producer._sender.sender_task  # it has no abort(): `stop` waits for a flush
    if sender is not None:
        sender.cancel()
    try:
        async with asyncio.timeout(1):
            await producer.stop()
    except (TimeoutError, KafkaError, OSError, asyncio.CancelledError):
        await producer.client.close()
