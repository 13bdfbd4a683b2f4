"""One librdkafka consumer without a group: a queue per partition, emptied into `Records`."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import select
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import KafkaError
from numpy.typing import NDArray

from schemas.columnar.records import Records
from streams.librdkafka import NO_CONSUMER_CLOSE, address_of, library, new_consumer
from streams.log import CLIENT_SETTINGS, ELECTING, LogUnavailable
from streams.messages import discard, error_code, take

READER_SETTINGS: dict[str, object] = {
    **CLIENT_SETTINGS,
    "isolation.level": "read_committed",
    "enable.partition.eof": True,
    "auto.offset.reset": "error",  # an offset that is gone is said, never replaced by another
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "check.crcs": True,  # costs nothing that could be measured
    "fetch.wait.max.ms": 100,
    "fetch.message.max.bytes": 1 << 20,
    "fetch.queue.backoff.ms": 1,
    "queued.min.messages": 20_000,  # more is slower: it no longer fits the processor's caches
    "queued.max.messages.kbytes": 8_192,
}
"""Per partition at most 20 000 records or 8 MiB, and one fetch of 1 MiB, wait in librdkafka's queue."""

_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION)
_PASSING = (
    *ELECTING,
    KafkaError._TRANSPORT,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
)
"""After these librdkafka asks for the same offset again by itself."""


_ABSENT = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
)
LOOK_SECONDS = 5.0
"""After so much silence the brokers are asked whether the partition exists: librdkafka only logs it."""


class OffsetGone(Exception):
    """The log does not hold the offset that is to be read next: retention removed it, or the log was cut."""

    retriable = False


@dataclass(slots=True)
class OpenPartition:
    """An assigned partition: librdkafka's queue of it, and how far it was handed out."""

    topic: str
    partition: int
    handle: int  # rd_kafka_topic_t
    queue: int
    position: int
    at_end: bool = False
    failure: Exception | None = None
    heard: float = field(default_factory=time.monotonic)
    messages: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    begin: int = 0
    end: int = 0  # messages[begin:end] were taken from the queue and are not handed out yet
    lock: threading.Lock = field(default_factory=threading.Lock)


class RecordClient:
    """librdkafka's handle and what hangs on it. One thread at a time per partition; the caller sees to it."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._lib = library()
        self._timestamp = address_of(self._lib.rd_kafka_message_timestamp)
        self._destroy = address_of(self._lib.rd_kafka_message_destroy)
        nothing = np.empty(
            0, np.int64
        )  # loads the machine code now, so that no poll waits for that
        take(nothing, 0, 0, self._timestamp, self._destroy)
        discard(nothing, 0, self._destroy)
        self._handle = new_consumer(settings)
        self._topics: dict[str, int] = {}
        # Each queue writes a byte when its first message comes: one wait for any number of partitions.
        self._wake, self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._waiting = threading.Lock()
        self._process = os.getpid()
        self._closed = False
        self._looked = 0.0

    def start(self, topic: str, partition: int, offset: int) -> OpenPartition:
        if topic not in self._topics:
            made = self._lib.rd_kafka_topic_new(self._handle, topic.encode(), None)
            if made is None:
                raise ValueError(f"librdkafka refuses the topic {topic!r}: {self._last_error()}")
            self._topics[topic] = made
        handle = self._topics[topic]
        queue = self._lib.rd_kafka_queue_new(self._handle)
        self._lib.rd_kafka_queue_io_event_enable(queue, self._woken, b"1", 1)
        if self._lib.rd_kafka_consume_start_queue(handle, partition, offset, queue):
            why = self._last_error()
            self._lib.rd_kafka_queue_destroy(queue)
            raise LogUnavailable(f"{topic}[{partition}] cannot be read: {why}")
        return OpenPartition(topic, partition, handle, queue, offset)

    def stop(self, part: OpenPartition) -> None:
        if os.getpid() != self._process:
            return
        with part.lock:
            self._lib.rd_kafka_consume_stop(part.handle, part.partition)
            discard(part.messages[part.begin :], part.end - part.begin, self._destroy)
            self._lib.rd_kafka_queue_destroy(part.queue)
            part.begin = part.end = part.queue = 0
            part.failure = ValueError(f"{part.topic}[{part.partition}] was revoked")

    def poll(self, part: OpenPartition, limit: int, timeout_s: float) -> Records | None:
        deadline = time.monotonic() + timeout_s
        while True:
            if part.failure is not None:
                raise part.failure
            if part.begin == part.end:
                self._fill(part, limit, max(0, deadline - time.monotonic()))
            if part.begin == part.end:
                self._look(part)
                return None
            records = self._take(part)
            if records is not None:
                return records

    def _fill(self, part: OpenPartition, limit: int, timeout_s: float) -> None:
        """Move messages from librdkafka's queue; the first is waited for, those behind it are not."""
        if len(part.messages) < limit:
            part.messages = np.empty(limit, np.int64)
        consume, base = self._lib.rd_kafka_consume_batch_queue, part.messages.ctypes.data
        count = consume(part.queue, 0, base, limit)
        if count == 0 and timeout_s > 0:
            count = consume(part.queue, math.ceil(timeout_s * 1000), base, 1)
            if 0 < count < limit:
                count += max(0, consume(part.queue, 0, base + count * 8, limit - count))
        part.begin, part.end = 0, max(0, count)
        if part.end:
            part.heard = time.monotonic()

    def _take(self, part: OpenPartition) -> Records | None:
        """What `messages` holds up to the first that is an error; notes that error."""
        address, length, offset, recorded, payloads, position, at_end, done = take(
            part.messages[part.begin :],
            part.end - part.begin,
            part.position,
            self._timestamp,
            self._destroy,
        )
        part.begin += done
        if len(offset):
            assert offset[0] >= part.position, "librdkafka handed a record out twice"
        part.position = position
        part.at_end = part.at_end if at_end < 0 else bool(at_end)
        if part.begin < part.end:
            self._note_failure(part, int(part.messages[part.begin]))
            part.begin += 1
        if not len(offset):
            return None
        return Records(
            part.topic, part.partition, address, length, offset, recorded, owner=payloads
        )

    def _note_failure(self, part: OpenPartition, message: int) -> None:
        code, why = error_code(message), self._lib.rd_kafka_message_errstr(message).decode()
        self._lib.rd_kafka_message_destroy(message)
        if code in _PASSING:
            return
        place = f"{part.topic}[{part.partition}] at offset {part.position}"
        if code in _GONE:
            _, low, high = self._ask(part, 5_000)
            part.failure = OffsetGone(
                f"{place}: the log holds offsets {low} to {high - 1} ({why}). Assign one of these to go on "
                "without what is missing, or restore the topic"
            )
        else:
            part.failure = LogUnavailable(f"{place}: {why}. Nothing after it was handed out")

    def _look(self, part: OpenPartition) -> None:
        """Note it if the partition does not exist; at most one question in LOOK_SECONDS."""
        now = time.monotonic()
        if now - max(part.heard, self._looked) < LOOK_SECONDS:
            return
        self._looked = part.heard = now
        code, _, _ = self._ask(part, 500)
        if code in _ABSENT:
            why = self._lib.rd_kafka_err2str(code).decode()
            part.failure = LogUnavailable(
                f"{part.topic}[{part.partition}] cannot be read: {why}. Create it, or correct the name"
            )

    def high(self, part: OpenPartition) -> int:
        """End offset as of the last fetch; -1 before the first."""
        low, high = ctypes.c_int64(-1), ctypes.c_int64(-1)
        self._lib.rd_kafka_get_watermark_offsets(
            self._handle,
            part.topic.encode(),
            part.partition,
            ctypes.byref(low),
            ctypes.byref(high),
        )
        return max(-1, high.value)

    def _ask(self, part: OpenPartition, timeout_ms: int) -> tuple[int, int, int]:
        """Error code, first offset and end offset as a broker says; offsets are -1 if none answers."""
        low, high = ctypes.c_int64(-1), ctypes.c_int64(-1)
        code: int = self._lib.rd_kafka_query_watermark_offsets(
            self._handle,
            part.topic.encode(),
            part.partition,
            ctypes.byref(low),
            ctypes.byref(high),
            timeout_ms,
        )
        return code, low.value, high.value

    def queued(self, part: OpenPartition) -> int:
        """So many messages were fetched and are not taken yet."""
        waiting: int = self._lib.rd_kafka_queue_length(part.queue)
        return waiting + part.end - part.begin

    def wait(self, timeout_s: float) -> bool:
        with self._waiting:
            if self._closed:
                raise ValueError("this reader is closed")
            self._lib.rd_kafka_poll(self._handle, 0)  # librdkafka's own chores
            poller = select.poll()
            poller.register(self._wake, select.POLLIN)
            if not poller.poll(math.ceil(timeout_s * 1000)):
                return False
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake, 4096)
            return True

    def close(self) -> None:
        """After every partition was stopped. A forked child has none of the threads that would answer."""
        with self._waiting:
            self._closed = True
            if os.getpid() == self._process:
                for handle in self._topics.values():
                    self._lib.rd_kafka_topic_destroy(handle)
                self._lib.rd_kafka_destroy_flags(self._handle, NO_CONSUMER_CLOSE)
            os.close(self._wake)
            os.close(self._woken)

    def _last_error(self) -> str:
        text: bytes = self._lib.rd_kafka_err2str(self._lib.rd_kafka_last_error())
        return text.decode()
