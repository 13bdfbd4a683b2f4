"""Fetches of record batches: who leads a partition is found out, asked, and asked again when it dies.

One thread runs one event loop: a task per broker with one fetch on its way, and a task that looks for
leaders. What came waits, still packed, until it is polled.
"""

from __future__ import annotations

import asyncio
import io
import os
import random
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from aiokafka.conn import collect_hosts
from aiokafka.protocol.fetch import FetchRequest, FetchRequest_v11
from aiokafka.protocol.metadata import MetadataRequest, MetadataRequest_v5
from aiokafka.protocol.offset import OffsetRequest, OffsetRequest_v2
from confluent_kafka import KafkaError

from infra import kafka_security
from schemas.columnar.records import Records
from streams.batches import Answer, BadBatch, Bytes, Chunk, Room, answers, chunk, take, warm
from streams.buffers import Buffers
from streams.log import ELECTING, LogUnavailable, Partition
from streams.proving import Secured

WAIT_MS = 100
"""So long a broker waits for records before it says that there are none."""
BESIDE_S = 0.05
"""So often the others are asked for while a partition has enough."""
PACE_S, SMALL_BYTES = 0.01, 1 << 16
"""After an answer smaller than that, a broker is left alone for so long: many such answers cost more than
they bring."""
ALL_BYTES = 1 << 26
"""What all partitions of a reader may have waiting for them."""
ANSWER_BYTES = 4_000_000
"""Of all partitions together in one answer, unless one batch has more. With what is said around it, it fits
into a block of 4 MiB: memory that is used for the first time costs more than another question."""
KEPT_SHARE = 3
"""What is less than this part of an answer is copied: it would keep the whole of it in memory."""
PATIENCE_S = 10.0
"""A broker that is silent for longer is given up until it is found again."""
BACKOFF_S = 0.05
LOOK_SECONDS = 5.0
"""A partition that has no leader for so long may not exist: then the brokers' word is taken for it."""
_FIRST_BYTES = 1 << 16
_NAME = "driftlog"
_COMMITTED = 1
_EARLIEST, _LATEST = -2, -1

_PASSING = (
    *ELECTING,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
)
"""After these the leader is looked for and the same offset asked for again."""
_ABSENT = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)


class OffsetGone(Exception):
    """The log does not hold the offset that is to be read next: retention removed it, or the log was cut."""

    retriable = False


@dataclass(slots=True, eq=False)
class OpenPartition:
    """An assigned partition: what was fetched of it, and how far it was handed out."""

    topic: str
    partition: int
    position: int
    asked: int  # the offset that is fetched next
    at_end: bool = False
    high: int = -1
    stable: int = -1  # the end of what is committed, as of the last fetch
    rest: Records | None = None  # unpacked, not handed out
    reached: int = 0  # the offset after what was unpacked
    chunks: deque[Chunk] = field(default_factory=deque)
    waiting: int = 0  # bytes of the chunks
    failure: Exception | None = None
    leader: int | None = None
    sought: bool = False  # its leader, at least once
    heard: float = field(default_factory=time.monotonic)
    fed: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)  # held by who polls
    ready: threading.Condition = field(default_factory=threading.Condition)  # over what came

    def fail(self, failure: Exception) -> None:
        """To be raised when what came before was polled."""
        with self.ready:
            self.failure = self.failure or failure
            self.ready.notify_all()


class Connection(asyncio.BufferedProtocol):
    """One request at a time to one broker."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._buffer = room(_FIRST_BYTES)
        self._have = 0
        self._number = 0
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    @classmethod
    async def to(cls, host: str, port: int, room: Room, secured: Secured) -> Connection:
        """Raises OSError, as for what takes too long; LogUnavailable if it takes us for nobody."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            _, made = await loop.create_connection(lambda: cls(room), host, port, ssl=secured.tls)
        try:
            await secured.prove(made.ask)
        except BaseException:
            made.close()
            raise
        return made

    async def ask(self, request: Any) -> Bytes:
        """The answer's body; raises OSError."""
        if self._transport is None:
            raise ConnectionError("the broker closed the connection")
        self._number += 1
        header = request.build_request_header(correlation_id=self._number, client_id=_NAME)
        message = header.encode() + request.encode()
        self._have, self._buffer = 0, self._room(_FIRST_BYTES)  # who has the last answer keeps it
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(struct.pack(">i", len(message)) + message)
        async with asyncio.timeout(PATIENCE_S):
            size = await self._answer
        if int.from_bytes(self._buffer[4:8].tobytes(), "big") != self._number:
            raise ConnectionError("the broker answered another question")
        return self._buffer[8:size]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer[self._have :].data

    def buffer_updated(self, nbytes: int) -> None:
        self._have += nbytes
        if self._have < 4:
            return
        size = 4 + int.from_bytes(self._buffer[:4].tobytes(), "big")
        if self._answer is None or self._answer.done() or self._have > size:
            self.close()  # bytes that nobody asked for
        elif self._have == size:
            self._answer.set_result(size)
        elif size > len(self._buffer):
            begun, self._buffer = self._buffer[: self._have], self._room(size)
            self._buffer[: self._have] = begun

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"the broker closed the connection: {exc}"))


class FetchClient:
    """The fetching thread and the partitions it feeds.

    Per partition at most `queue_bytes` and one fetch of `fetch_bytes` wait to be polled, as packed as they
    came, or its share of ALL_BYTES if that is less; a fetch brings at least one batch, however big.
    """

    def __init__(self, bootstrap: str, fetch_bytes: int, queue_bytes: int) -> None:
        warm()
        self._bootstrap = [(host, port) for host, port, _ in collect_hosts(bootstrap)]
        self._secured = Secured.by(kafka_security.security())
        self._most_fetched, self._most_queued = fetch_bytes, queue_bytes
        self._buffers = Buffers()
        self._parts: dict[Partition, OpenPartition] = {}
        self._brokers: dict[int, tuple[str, int]] = {}
        self._room: dict[int, asyncio.Event] = {}  # of each broker that is being asked
        self._tasks: set[asyncio.Task[None]] = set()
        self._lookup = asyncio.Event()
        self._informer: Connection | None = None
        self._news = threading.Event()
        self._closed = False
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._main = self._loop.create_task(self._lead())
        self._thread = threading.Thread(target=self._run, name="fetching", daemon=True)
        self._thread.start()

    @property
    def _share(self) -> int:
        return ALL_BYTES // max(1, len(self._parts))

    @property
    def _fetch_bytes(self) -> int:
        return min(self._most_fetched, self._share)

    @property
    def _queue_bytes(self) -> int:
        return min(self._most_queued, self._share)

    def start(self, topic: str, partition: int, offset: int) -> OpenPartition:
        part = OpenPartition(topic, partition, offset, offset)
        self._parts[topic, partition] = part
        self._wake()
        return part

    def stop(self, part: OpenPartition) -> None:
        if os.getpid() != self._process:
            return
        part.fail(ValueError(f"{part.topic}[{part.partition}] was revoked"))
        with part.lock:
            if self._parts.get((part.topic, part.partition)) is part:
                del self._parts[part.topic, part.partition]
            part.rest = None
            part.chunks.clear()

    def poll(self, part: OpenPartition, limit: int, timeout_s: float) -> Records | None:
        deadline = time.monotonic() + timeout_s
        stood = part.failure
        while part.rest is None:
            with part.ready:
                if timeout_s > 0:
                    left = max(0.0, deadline - time.monotonic())
                    part.ready.wait_for(lambda: part.chunks or part.failure, left)
                if not part.chunks:
                    if part.failure is None:
                        part.at_end = 0 <= part.stable <= part.position
                    elif stood is not None or not isinstance(part.failure, ValueError):
                        raise part.failure
                    return None  # also when it was revoked while it was waited for
            self._unpack(part, limit)
        return self._hand_out(part, part.rest, limit)

    def _unpack(self, part: OpenPartition, limit: int) -> None:
        """The next of what came into `rest`; the position passes what readers of committed records skip."""
        try:
            taken = take(part.chunks, part.position, limit, self._buffers.take)
        except BadBatch as error:
            with part.ready:
                part.chunks.clear()
                part.failure = _stuck(part, part.position, str(error))
            raise part.failure from error
        with part.ready:
            before = part.waiting
            part.waiting -= taken.freed
        if before >= self._queue_bytes > part.waiting:
            self._wake()
        part.reached = taken.position
        if len(taken.offset):
            part.rest = Records(part.topic, part.partition, *taken[:4], owner=taken.owner)
        else:
            part.position = taken.position

    def _hand_out(self, part: OpenPartition, records: Records, limit: int) -> Records:
        if len(records) > limit:
            part.rest = records.between(limit, len(records))
            records = records.between(0, limit)
            part.position = int(records.offset[-1]) + 1
            return records
        with part.ready:
            part.rest, part.position = None, part.reached
            part.at_end = not part.chunks and 0 <= part.stable <= part.position
        return records

    def queued(self, part: OpenPartition) -> int:
        """So many records were fetched and are not handed out yet."""
        with part.ready:
            packed = sum(chunk.records for chunk in part.chunks)
        return packed + (0 if part.rest is None else len(part.rest))

    def wait(self, timeout_s: float) -> bool:
        if self._closed:
            raise ValueError("this reader is closed")
        if not self._news.wait(timeout_s):
            return False
        self._news.clear()
        return True

    def close(self) -> None:
        """After every partition was stopped. A forked child has no thread that it could end."""
        self._closed = True
        if os.getpid() != self._process:
            return
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._main.cancel)
        if threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE_S)
        self._news.set()

    def _wake(self) -> None:
        """Something is to be fetched that was not: tell the loop."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._look_again)

    # What follows runs in the loop.

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)
        self._loop.close()

    def _look_again(self) -> None:
        self._lookup.set()
        for room in self._room.values():
            room.set()

    def _open(self) -> list[OpenPartition]:
        return [part for part in list(self._parts.values()) if part.failure is None]

    async def _lead(self) -> None:
        """Find leaders, and have each of them asked."""
        try:
            while True:
                self._lookup.clear()
                lost = [part for part in self._open() if part.leader is None]
                if not lost:
                    await self._lookup.wait()
                    continue
                try:
                    await self._find(lost)
                except LogUnavailable as error:  # brokers take us for nobody
                    for part in lost:
                        part.fail(error)
                    self._news.set()
                for part in lost:
                    part.sought = True
                await self._back_off()
        except Exception as error:  # whoever polls must hear of it
            for part in self._open():
                part.fail(error)
            raise
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            if self._informer is not None:
                self._informer.close()

    async def _back_off(self) -> None:
        """Also where all were found: a leader may be the dead one still. What is new does not wait for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(BACKOFF_S):
                while all(part.sought for part in self._open()):
                    self._lookup.clear()
                    await self._lookup.wait()

    async def _find(self, lost: list[OpenPartition]) -> None:
        known = await self._metadata(sorted({part.topic for part in lost}))
        if known is None:
            return
        self._brokers, topics = known
        for part in lost:
            code, leaders = topics.get(part.topic, (KafkaError.UNKNOWN_TOPIC_OR_PART, {}))
            code = code or (0 if part.partition in leaders else KafkaError.UNKNOWN_TOPIC_OR_PART)
            leader = leaders.get(part.partition, -1)
            if code == 0 and leader in self._brokers:
                part.leader = leader
                if leader not in self._room:
                    self._room[leader] = asyncio.Event()
                    task = self._loop.create_task(self._serve(leader))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                self._room[leader].set()
            elif code in _ABSENT and time.monotonic() - part.heard > LOOK_SECONDS:
                part.fail(
                    LogUnavailable(
                        f"{part.topic}[{part.partition}] cannot be read: {KafkaError(code).str()}. "
                        "Create it, or correct the name"
                    )
                )
                self._news.set()

    async def _metadata(
        self, topics: list[str]
    ) -> tuple[dict[int, tuple[str, int]], dict[str, tuple[int, dict[int, int]]]] | None:
        """Brokers by id; per topic an error code and the leaders of its partitions. None if none answers."""
        request = MetadataRequest(topics, allow_auto_topic_creation=False).build(MetadataRequest_v5)
        places = list({*self._brokers.values(), *self._bootstrap})
        random.shuffle(places)
        for host, port in places:
            try:
                if self._informer is None:
                    self._informer = await self._connection(host, port)
                body = await self._informer.ask(request)
            except OSError:
                if self._informer is not None:
                    self._informer.close()
                self._informer = None
                continue
            found = request.RESPONSE_TYPE.decode(io.BytesIO(body.data))
            if found.brokers:
                return (
                    {broker: (host, port) for broker, host, port, _ in found.brokers},
                    {
                        topic: (code, {p: leader for _, p, leader, *_ in partitions})
                        for code, topic, _, partitions in found.topics
                    },
                )
        return None

    async def _serve(self, broker: int) -> None:
        """Ask one broker for what it leads, until it leads nothing or does not answer."""
        room, connection = self._room[broker], None
        try:
            while mine := [part for part in self._open() if part.leader == broker]:
                room.clear()
                asked = [part for part in mine if part.waiting < self._queue_bytes]
                # While one has enough, no answer may be waited for: room for it would not be seen.
                full = len(asked) < len(mine)
                came = 0
                if asked:
                    connection = connection or await self._connect(broker)
                    came = await self._fetch(connection, asked, 0 if full else WAIT_MS)
                pause = 0.0
                if came < min(SMALL_BYTES, self._fetch_bytes // 4):
                    pause = PACE_S if came else BESIDE_S * full
                if pause:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await room.wait()
        except OSError:
            self._lose([part for part in self._open() if part.leader == broker])
        except Exception as error:
            for part in self._open():
                part.fail(error)
            self._news.set()
        finally:
            del self._room[broker]
            if connection is not None:
                connection.close()

    async def _connect(self, broker: int) -> Connection:
        if broker not in self._brokers:
            raise ConnectionError(f"broker {broker} left the cluster")
        return await self._connection(*self._brokers[broker])

    async def _connection(self, host: str, port: int) -> Connection:
        return await Connection.to(host, port, self._buffers.take, self._secured)

    def _lose(self, parts: list[OpenPartition]) -> None:
        for part in parts:
            part.leader = None
        self._lookup.set()

    async def _fetch(self, connection: Connection, asked: list[OpenPartition], wait_ms: int) -> int:
        """One fetch; the bytes of batches that it brought."""
        asked.sort(key=lambda part: part.fed)  # an answer may be full before it comes to the last
        topics: dict[str, list[tuple[int, int, int]]] = {}
        for part in asked:
            topics.setdefault(part.topic, []).append(
                (part.partition, part.asked, self._fetch_bytes)
            )
        most = min(ANSWER_BYTES, len(asked) * self._fetch_bytes)
        request = FetchRequest(wait_ms, 1, most, _COMMITTED, list(topics.items()))
        body = await connection.ask(request.build(FetchRequest_v11))
        by_name = {(part.topic, part.partition): part for part in asked}
        came, gone = 0, []
        for answer in self._answers(body, asked):
            part = by_name[answer.topic, answer.partition]
            if answer.error in (0, KafkaError.OFFSET_OUT_OF_RANGE):
                part.heard = time.monotonic()
            if answer.error == 0:
                came += self._deliver(part, answer, body)
            elif answer.error == KafkaError.OFFSET_OUT_OF_RANGE:
                gone.append(part)
            elif answer.error in _PASSING:
                self._lose([part])
            else:
                self._fail([part], KafkaError(answer.error).str())
        for part in gone:
            low, high = [await _offset(connection, part, which) for which in (_EARLIEST, _LATEST)]
            part.fail(
                OffsetGone(
                    f"{_place(part, part.asked)}: the log holds offsets {low} to {high - 1} "
                    f"({KafkaError(KafkaError.OFFSET_OUT_OF_RANGE).str()}). Assign one of these to go on "
                    "without what is missing, or restore the topic"
                )
            )
            self._news.set()
        return came

    def _answers(self, body: Bytes, asked: list[OpenPartition]) -> list[Answer]:
        try:
            return answers(body.data)
        except BadBatch as error:
            self._fail(asked, str(error))
            return []

    def _fail(self, parts: list[OpenPartition], why: str) -> None:
        for part in parts:
            part.fail(_stuck(part, part.asked, why))
        self._news.set()

    def _deliver(self, part: OpenPartition, answer: Answer, body: Bytes) -> int:
        """Hand an answer to whoever polls; its bytes of batches."""
        came = None
        if answer.end > answer.begin:
            batches = body[answer.begin : answer.end]
            little = KEPT_SHARE * len(batches) < max(len(body), _FIRST_BYTES)
            try:
                came = chunk(
                    batches, part.asked, answer.aborted, self._buffers.take if little else None
                )
            except BadBatch as error:
                self._fail([part], str(error))
                return 0
        with part.ready:
            if part.failure is not None:
                return 0
            ended = part.stable < answer.stable <= (part.asked if came is None else came.after)
            part.high, part.stable = answer.high, answer.stable
            if came is not None:
                part.chunks.append(came)
                part.waiting += len(came.data)
                part.asked = came.after
                part.fed = time.monotonic()
                part.ready.notify_all()
        if came is not None or ended:
            self._news.set()
        return 0 if came is None else len(came.data)


async def _offset(connection: Connection, part: OpenPartition, which: int) -> int:
    """The first offset that the log holds, or its end."""
    topics = [(part.topic, [(part.partition, which)])]
    request = OffsetRequest(-1, 0, topics).build(OffsetRequest_v2)
    found = request.RESPONSE_TYPE.decode(io.BytesIO((await connection.ask(request)).data))
    ((_, ((_, _, _, offset),)),) = found.topics
    return int(offset)


def _place(part: OpenPartition, offset: int) -> str:
    return f"{part.topic}[{part.partition}] at offset {offset}"


def _stuck(part: OpenPartition, offset: int, why: str) -> LogUnavailable:
    return LogUnavailable(f"{_place(part, offset)}: {why}. Nothing after it was handed out")
