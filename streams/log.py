"""The log: write events so that they stay, read them from the start to a given point."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import structlog
from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from infra import kafka_security
from infra.settings import Settings
from schemas.catalogue import Topic, system_topics
from schemas.codec import Codec
from schemas.errors import RegistryUnavailable, UndecodableEvent
from schemas.event import Event, Position
from schemas.registry.client import RegistryClient
from streams.merge import Merger
from streams.task import Task

Partition = tuple[str, int]
T = TypeVar("T")
QUIET_SECONDS = 60
ELECTION_SECONDS = 15.0
AHEAD = 8_000
"""So many queued events of one partition are enough while others are waited for."""
NOT_FAR_AHEAD = 6_000
"""With so many left it is read on: librdkafka notices half a second late, and the rest must last as long."""
ELECTING = (
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
)
logger = structlog.get_logger()
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-01").fullmatch
Offsets = dict[Partition, int]

# Short timeouts find the new leader of a partition within seconds of a broker's death.
CLIENT_SETTINGS: dict[str, Any] = {
    "socket.keepalive.enable": True,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 2_000,
    "log_level": 2,
}


class LogUnavailable(Exception):
    """Not acknowledged in time: what was sent may or may not be in the log (send the same ids again)."""

    retriable = True


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is no event, with the reason."""

    at: Position
    value: bytes | None
    error: UndecodableEvent


def record_headers(event: Event, source: str = "driftlog") -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 binary-mode attributes, and W3C `traceparent` derived from the causal chain's ids."""
    seconds, millis = divmod(event.time, 1000)
    own = event.id
    version, origin, kind, content = _lasting_headers(source, event.topic, event.type)
    stamp = f"{_to_the_second(seconds)}.{millis:03d}Z"
    headers = [version, ("ce_id", own.encode()), origin, kind, ("ce_time", stamp.encode()), content]
    cause = event.data.get("caused_by")
    if cause:
        headers.append(("ce_causationid", str(cause).encode()))
    span = own.replace("-", "")
    trace = (str(cause).replace("-", "") if cause else span) + "0" * 32
    parent = f"00-{trace[:32]}-{span[-16:]}-01"
    if _TRACEPARENT(parent):
        headers.append(("traceparent", parent.encode()))
    return headers


@lru_cache(1 << 10)
def _lasting_headers(source: str, topic: str, event_type: str) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", b"1.0"),
        ("ce_source", f"/{source}/{topic}".encode()),
        ("ce_type", event_type.encode()),
        ("content-type", b"application/avro"),
    )


@lru_cache(1 << 10)
def _to_the_second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def connect_codec(settings: Settings, tasks: Sequence[Task] = ()) -> Codec:
    """A codec over the system topics and those of `tasks`, with the instance's schema registry."""
    registry = RegistryClient(settings.registry, settings.home / "schemas")
    return Codec(registry, all_topics(settings, tasks))


def all_topics(settings: Settings, tasks: Sequence[Task]) -> list[Topic]:
    own = [topic for task in tasks for topic in task.topics(settings.partitions)]
    return [*system_topics(), *own]


class LogWriter:
    """Appends events; `append` returns when min.insync.replicas brokers have each of them."""

    def __init__(self, bootstrap: str, codec: Codec, timeout_s: float = 30.0) -> None:
        self._settings = {
            **CLIENT_SETTINGS,
            **kafka_security.librdkafka(bootstrap),
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": "lz4",
            "delivery.timeout.ms": int(timeout_s * 1000),
            "request.timeout.ms": 3_000,
        }
        self._codec = codec
        self._timeout_s = timeout_s
        self._producer = Producer(self._settings)

    def append(self, events: Sequence[Event]) -> list[Position]:
        """Positions in the order of `events`; raises LogUnavailable, or InvalidEvent (nothing was sent)."""
        records = [
            (event.topic, self._codec.key(event), self._codec.encode(event), record_headers(event))
            for event in events
        ]
        return self.append_raw(records)

    def insist(self, events: Sequence[Event], stop: threading.Event) -> None:
        """`append` until it works: what was folded must be said. Raises LogUnavailable once `stop` is set."""
        while events:
            try:
                self.append(events)
                return
            except LogUnavailable as error:
                logger.warning("append not acknowledged, trying again", error=str(error))
                if stop.is_set():
                    raise

    def append_raw(
        self, records: Sequence[tuple[str, bytes | None, bytes | None, list[tuple[str, bytes]]]]
    ) -> list[Position]:
        """Append (topic, key, value, headers) as they are."""
        positions: list[Position | None] = [None] * len(records)
        errors: list[KafkaError] = []

        def delivered(index: int) -> Callable[[KafkaError | None, Message], None]:
            def note(error: KafkaError | None, message: Message) -> None:
                if error is not None:
                    errors.append(error)
                else:
                    positions[index] = Position(
                        str(message.topic()), _int(message.partition()), _int(message.offset())
                    )

            return note

        for index, (topic, key, value, headers) in enumerate(records):
            while True:
                try:
                    self._producer.produce(
                        topic, value, key, headers=list(headers), on_delivery=delivered(index)
                    )
                    break
                except BufferError:  # local queue full: let deliveries make room
                    self._producer.poll(0.1)
            self._producer.poll(0)
        self._producer.flush(self._timeout_s + 5)
        done = [position for position in positions if position is not None]
        if errors or len(done) < len(records):
            # Its sequence numbers may be beyond repair: a new producer, and the caller sends again.
            self._producer.purge()
            self._producer = Producer(self._settings)
            why = errors[0].str() if errors else f"no answer within {self._timeout_s:.0f} s"
            raise LogUnavailable(
                f"{len(records) - len(done)} of {len(records)} records not acknowledged: {why}"
            )
        return done


def make_consumer(bootstrap: str, group: str = "driftlog-reader", **extra: Any) -> Consumer:
    """For manual assignment and commits; fetches small pieces, so that partitions stay aligned."""
    return Consumer(
        {
            **CLIENT_SETTINGS,
            **kafka_security.librdkafka(bootstrap),
            "group.id": group,
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 50,
            "fetch.message.max.bytes": 262_144,
            "queued.min.messages": 2_000,
            "fetch.queue.backoff.ms": 5,  # the default, a second, is how long a reader would then stand still
            "enable.partition.eof": True,
            **extra,
        }
    )


def partitions_of(consumer: Consumer, topics: Sequence[str]) -> list[Partition]:
    """All partitions of the topics that exist; raises LogUnavailable."""
    try:
        metadata = consumer.list_topics(timeout=10).topics
    except KafkaException as error:
        raise LogUnavailable(f"no broker answers: {error.args[0].str()}") from error
    return [(t, p) for t in topics if t in metadata for p in sorted(metadata[t].partitions)]


def end_offsets(consumer: Consumer, partitions: Sequence[Partition]) -> Offsets:
    """The next offset to be written, per partition; raises LogUnavailable."""
    return {key: _end_offset(consumer, TopicPartition(*key)) for key in partitions}


def committed_offsets(consumer: Consumer, partitions: Sequence[Partition]) -> Offsets:
    """What the consumer's group has committed, 0 where nothing; raises KafkaException."""
    wanted = [TopicPartition(*key) for key in partitions]
    return {
        (str(found.topic), found.partition): max(found.offset, 0)
        for found in consumer.committed(wanted, timeout=15)
    }


def _end_offset(consumer: Consumer, partition: TopicPartition) -> int:
    """A new leader does not know the end for a moment: it is asked again for ELECTION_SECONDS."""
    deadline = time.monotonic() + ELECTION_SECONDS
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=10)[1]
        except KafkaException as error:
            known = error.args[0].code() in ELECTING
            if not known or time.monotonic() > deadline:
                raise LogUnavailable(f"no broker answers: {error.args[0].str()}") from error
            time.sleep(0.1)


def decode(codec: Codec, message: Message) -> Event | BadRecord:
    """The event in a record; waits while the registry is down (a registry's trouble is no poison)."""
    at = Position(str(message.topic()), _int(message.partition()), _int(message.offset()))
    kind, stamp = message.timestamp()
    value = message.value()
    payload = value if isinstance(value, bytes) else None
    return decode_value(codec, at, payload, 0 if kind == TIMESTAMP_NOT_AVAILABLE else stamp)


def decode_value(
    codec: Codec, at: Position, value: bytes | None, recorded_ms: int
) -> Event | BadRecord:
    """The event in a record's value; waits while the registry is down."""
    try:
        return patiently(lambda: codec.decode(at, value, recorded_ms))
    except UndecodableEvent as error:
        return BadRecord(at, value, error)


def patiently(decode: Callable[[], T]) -> T:
    """What `decode` returns, once the registry answers."""
    while True:
        try:
            return decode()
        except RegistryUnavailable:
            time.sleep(0.5)


def read(
    bootstrap: str,
    codec: Codec,
    topics: Sequence[str],
    to: Mapping[Partition, int] | None = None,
    start: Mapping[Partition, int] | None = None,
    on_bad: Callable[[BadRecord], None] = lambda bad: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Iterator[Event]:
    """Every event of `topics` up to the offsets `to` (default: the end as of now), merged by time of record.

    Partitions that `to` does not name are not read when `to` is given. `on_progress(done, total)`
    counts offsets. Raises LogUnavailable.
    """
    consumer = make_consumer(bootstrap)
    try:
        partitions = partitions_of(consumer, topics)
        ends = end_offsets(consumer, partitions)
        if to is not None:
            ends = {key: min(end, to[key]) for key, end in ends.items() if key in to}
        begins = {key: (start or {}).get(key, 0) for key in ends}
        reading = _Reading(codec, {k: end for k, end in ends.items() if end > begins[k]}, on_bad)
        if not reading.open:
            return
        consumer.assign([TopicPartition(*key, begins[key]) for key in sorted(reading.open)])
        total = sum(end - begins[key] for key, end in reading.open.items())
        balance = Balance(consumer, reading.merger, reading.open)
        quiet_since = time.monotonic()
        while reading.open:
            messages = poll_batch(consumer, 2_000, 0.2)
            if messages:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > QUIET_SECONDS:
                left = len(reading.open)
                raise LogUnavailable(f"nothing came for {QUIET_SECONDS} s, {left} partitions open")
            for message in messages:
                reading.take(message)
            yield from reading.merger.pop()
            balance.keep()
            on_progress(reading.done, total)
        yield from reading.merger.pop()
        on_progress(total, total)
    finally:
        consumer.close()


def newest(bootstrap: str, codec: Codec, topic: str, count: int) -> list[Event]:
    """The last `count` records of each partition of `topic`, those that are events; raises LogUnavailable."""
    consumer = make_consumer(bootstrap)
    try:
        ends = end_offsets(consumer, partitions_of(consumer, [topic]))
    finally:
        consumer.close()
    start = {key: max(0, end - count) for key, end in ends.items()}
    return list(read(bootstrap, codec, [topic], to=ends, start=start))


def follow(
    bootstrap: str,
    codec: Codec,
    topics: Sequence[str],
    from_start: bool = False,
    wait_s: float = 0.2,
) -> Iterator[list[Event | BadRecord]]:
    """What arrives from now on (or all there is, and then on), for ever; an empty list if nothing came.

    Without merging: order holds within a partition. Survives brokers that die. Raises LogUnavailable
    if none answers at the start.
    """
    consumer = make_consumer(bootstrap)
    try:
        partitions = partitions_of(consumer, topics)
        begins = dict.fromkeys(partitions, 0) if from_start else end_offsets(consumer, partitions)
        consumer.assign([TopicPartition(*key, offset) for key, offset in begins.items()])
        while True:
            messages = poll_batch(consumer, 1_000, wait_s)
            yield [decode(codec, m) for m in messages if m.error() is None]
    finally:
        consumer.close()


def poll_batch(consumer: Consumer, most: int, wait_s: float) -> list[Message]:
    """What has come; waits for the first only, where `consume` would wait for as many as it is asked for."""
    first = consumer.consume(1, wait_s)
    return first + consumer.consume(most - 1, 0.001) if first else []


class Balance:
    """Pauses partitions that run ahead of the others, so that merging them needs bounded memory."""

    def __init__(self, consumer: Consumer, merger: Merger, partitions: Iterable[Partition]) -> None:
        self._consumer = consumer
        self._merger = merger
        self._partitions = list(partitions)
        self._paused: set[Partition] = set()

    def keep(self) -> None:
        """Call it after each poll."""
        queued = {key: self._merger.queued(key) for key in self._partitions}
        ahead = {key for key, count in queued.items() if count > AHEAD} - self._paused
        level = {key for key in self._paused if queued[key] < NOT_FAR_AHEAD}
        if ahead:
            self._consumer.pause([TopicPartition(*key) for key in ahead])
        if level:
            self._consumer.resume([TopicPartition(*key) for key in level])
        self._paused = (self._paused | ahead) - level


class _Reading:
    """What a bounded read still waits for: partition -> the offset at which it ends."""

    def __init__(
        self, codec: Codec, ends: dict[Partition, int], on_bad: Callable[[BadRecord], None]
    ) -> None:
        self._codec = codec
        self._on_bad = on_bad
        self.open = ends
        self.merger = Merger(ends)
        self.done = 0

    def take(self, message: Message) -> None:
        key = str(message.topic()), _int(message.partition())
        error = message.error()
        if error is not None and error.fatal():
            raise LogUnavailable(error.str())
        end = self.open.get(key)
        if end is None or (error is not None and error.code() != KafkaError._PARTITION_EOF):
            return
        offset = _int(message.offset())
        if error is None and offset < end:
            self.done += 1
            item = decode(self._codec, message)
            if isinstance(item, Event):
                self.merger.push(item)
            else:
                self._on_bad(item)
        # An end-of-partition mark also passes control records, which are never handed out.
        if offset + (error is None) >= end:
            del self.open[key]
            self.merger.close(key)


def _int(value: int | None) -> int:
    assert value is not None
    return value
