"""The topic `_schemas` as a log of records: a thread folds it, writes wait until they are read back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from infra import kafka_security
from schemas.registry import faults, store
from schemas.registry.records import TOPIC, Record, noop_record
from schemas.registry.store import State

logger = logging.getLogger("driftlog.registry")

WRITE_SECONDS = 5.0
READ_BACK_SECONDS = 3.0
RETRY_SECONDS = 0.25
_CLIENT: dict[str, Any] = {
    "socket.keepalive.enable": True,
    "socket.connection.setup.timeout.ms": 2_000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 2_000,
    "log_level": 2,
}


class _LogBeganAnew(Exception):
    """Offsets went back: the topic was removed and made again, so what was folded is of another log."""


class KafkaLog:
    """One writer and one reader of `_schemas`; `start` returns at once, the reader catches up by itself."""

    def __init__(self, bootstrap: str, replication: int) -> None:
        self._client = {**_CLIENT, **kafka_security.librdkafka(bootstrap)}
        self._replication = replication
        self._state = State()
        self._next_offset = 0
        self._loaded = False
        self._reached = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="schemas-reader", daemon=True)
        self._producer: Producer | None = None
        self._failure = "Kafka has not been reached yet"

    def start(self) -> None:
        """Begin to read the topic; it is created if it is not there."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading; waits for the reader to leave."""
        self._stop.set()
        self._thread.join(5)

    @property
    def loaded(self) -> bool:
        """True once everything that was in the topic at the start has been folded."""
        return self._loaded

    @property
    def offset(self) -> int:
        """Offset of the next record to read."""
        return self._next_offset

    @contextmanager
    def state(self) -> Iterator[State]:
        """The folded state; raises StoreUnavailable until the topic was read once."""
        with self._reached:
            if not self._loaded:
                raise faults.store_unavailable(f"{self._failure}; try again in a few seconds")
            yield self._state

    def settle(self) -> None:
        """Make sure that the state holds everything that is in the topic.

        After an unclear write (or a start) the reader may not know the end of the log: a record of no
        meaning that comes back proves that everything before it was read.
        """
        if self._producer is None:
            self._producer = Producer(
                {
                    **self._client,
                    "acks": "all",
                    "enable.idempotence": True,
                    "linger.ms": 0,
                    "delivery.timeout.ms": int(WRITE_SECONDS * 1000),
                    "request.timeout.ms": 3_000,
                }
            )
            self.append([noop_record()])

    def append(self, records: Sequence[Record]) -> None:
        """Write, acknowledged by all in-sync replicas, and wait until the reader has applied it."""
        delivered: list[int] = []
        errors: list[KafkaError] = []

        def report(error: KafkaError | None, message: Message) -> None:
            if error is None:
                delivered.append(_offset(message))
            else:
                errors.append(error)

        producer, self._producer = self._producer, None
        assert producer is not None, "settle comes before append"
        try:
            for record in records:
                producer.produce(
                    TOPIC, value=record.value, key=record.key, partition=0, on_delivery=report
                )
            producer.flush(WRITE_SECONDS + 1)
        except (KafkaException, BufferError) as error:
            raise faults.store_unavailable(error) from error
        if errors or len(delivered) < len(records):
            why = errors[0].str() if errors else f"no acknowledgement within {WRITE_SECONDS:.0f} s"
            raise faults.store_unavailable(f"{why}; is Kafka up? (the write may be sent again)")
        self._await(max(delivered) + 1)
        self._producer = producer  # only one whose every write came back is used again

    def _await(self, offset: int) -> None:
        with self._reached:
            if not self._reached.wait_for(lambda: self._next_offset >= offset, READ_BACK_SECONDS):
                raise faults.store_unavailable(
                    f"the write at {TOPIC}@{offset - 1} was not read back in {READ_BACK_SECONDS:.0f} s"
                )

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._ensure_topic()
                self._read()
            except _LogBeganAnew:
                logger.warning("%s begins anew: so does the registry", TOPIC)
                with self._reached:
                    self._state, self._next_offset = State(), 0
            except KafkaException as error:
                self._failure = f"Kafka does not answer ({error.args[0].str()})"
                self._stop.wait(RETRY_SECONDS)
            except Exception:
                logger.exception("the reader of %s starts again", TOPIC)
                self._stop.wait(RETRY_SECONDS)

    def _ensure_topic(self) -> None:
        admin = AdminClient(self._client)
        if TOPIC in admin.list_topics(timeout=2).topics:
            return
        config = {
            "cleanup.policy": "compact",
            "min.insync.replicas": str(max(1, self._replication - 1)),
        }
        topic = NewTopic(
            TOPIC, num_partitions=1, replication_factor=self._replication, config=config
        )
        try:
            admin.create_topics([topic], operation_timeout=5, request_timeout=6)[TOPIC].result(8)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise

    def _read(self) -> None:
        consumer = Consumer(
            {
                **self._client,
                "group.id": "driftlog-registry",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
                "fetch.error.backoff.ms": 50,
            }
        )
        try:
            start = self._next_offset or OFFSET_BEGINNING
            consumer.assign([TopicPartition(TOPIC, 0, start)])
            while not self._stop.is_set():
                message = consumer.poll(0.2)
                if message is not None:
                    self._take(message)
        finally:
            consumer.close()

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            self._apply(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            with self._reached:
                if _offset(message) < self._next_offset:
                    raise _LogBeganAnew
                self._next_offset = _offset(message)
                self._loaded = True
                self._reached.notify_all()
        elif error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise KafkaException(error)
        else:
            self._failure = f"Kafka does not answer ({error.str()})"
            time.sleep(0.05)

    def _apply(self, message: Message) -> None:
        with self._reached:
            offset = _offset(message)
            if offset < self._next_offset:
                raise _LogBeganAnew
            store.apply(self._state, Record(message.key() or b"", message.value()))
            self._next_offset = offset + 1
            self._reached.notify_all()


def _offset(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return int(offset)
