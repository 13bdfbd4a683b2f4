"""Reads every partition of the topics from where the store stands: manual assignment, no group."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from consumers.history.record import Part, Partition
from infra import kafka_security

GROUP = "driftlog-history"
BATCH_ROWS = 20_000
BATCH_BYTES = 32_000_000
BATCH_SECONDS = 0.25


class LogUnavailable(ConnectionError):
    """No broker answered; the clients reconnect by themselves, so try again."""


class LogReader:
    """A Kafka consumer of all partitions of `topics`; its offsets live in the store."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._topics = tuple(topics)
        self._admin = AdminClient(_client(bootstrap))
        self._consumer = Consumer(
            {
                **_client(bootstrap),
                "group.id": GROUP,  # only so that tools can show the lag
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",  # repeats are removed by event_id, gaps are not
                "isolation.level": "read_committed",
                "max.poll.interval.ms": 86_400_000,
                "queued.max.messages.kbytes": 65_536,
                "fetch.wait.max.ms": 100,
            }
        )
        self._assigned: set[Partition] = set()
        self._ends: dict[Partition, int] = {}

    def partitions(self) -> set[Partition]:
        """The partitions that exist now; raises LogUnavailable."""
        try:
            found = self._consumer.list_topics(timeout=3.0).topics
        except KafkaException as error:
            raise LogUnavailable(_text(error)) from error
        return {
            (topic, partition)
            for topic in self._topics
            if topic in found and found[topic].error is None
            for partition in found[topic].partitions
        }

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Kafka's ids of the topics: a topic that was deleted and made again has a new one."""
        names = sorted(set(topics))
        if not names:
            return {}
        try:
            futures = self._admin.describe_topics(TopicCollection(names), request_timeout=5.0)
            return {name: str(future.result().topic_id) for name, future in futures.items()}
        except KafkaException as error:
            raise LogUnavailable(_text(error)) from error

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these partitions from these offsets on; those assigned before must be among them."""
        self._consumer.assign(
            [
                TopicPartition(topic, partition, offset if offset > 0 else OFFSET_BEGINNING)
                for (topic, partition), offset in offsets.items()
            ]
        )
        self._assigned = set(offsets)

    def read(self, stopped: Callable[[], bool]) -> tuple[list[Part], dict[Partition, int]]:
        """(records, partitions that were read to their end -> that end), within BATCH_SECONDS."""
        messages: dict[Partition, list[Message]] = {}
        ended: dict[Partition, int] = {}
        count, size, give_up = 0, 0, time.monotonic() + BATCH_SECONDS
        while count < BATCH_ROWS and size < BATCH_BYTES and not stopped():
            left = give_up - time.monotonic()
            if left <= 0:
                break
            for message in self._consumer.consume(min(2_000, BATCH_ROWS - count), left):
                partition = (message.topic() or "", message.partition() or 0)
                error = message.error()
                if error is None:
                    messages.setdefault(partition, []).append(message)
                    count += 1
                    size += len(message)
                    if ended:
                        ended.pop(partition, None)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended[partition] = message.offset() or 0
                    self._ends[partition] = ended[partition]
                elif error.fatal():
                    raise LogUnavailable(str(error))
        return [_part(*partition, found) for partition, found in messages.items()], ended

    def end(self, partition: Partition) -> int:
        """The partition's high watermark as last heard; -1 before the first fetch."""
        try:
            _, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), cached=True)
        except KafkaException:
            high = -1
        return max(int(high), self._ends.get(partition, -1))

    def wait_at(self, partition: Partition, offset: int) -> None:
        """Go back to `offset` and stay there until `go_on`."""
        place = TopicPartition(*partition, offset)
        self._consumer.seek(place)
        self._consumer.pause([place])

    def go_on(self, partition: Partition) -> None:
        self._consumer.resume([TopicPartition(*partition)])

    def show_progress(self, offsets: Mapping[Partition, int]) -> None:
        """Commit group offsets for tools that show lag; nothing here reads them."""
        places = [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=True)
        except KafkaException:
            return  # the next batch tries again

    def close(self) -> None:
        self._consumer.close()


class LogEnds:
    """Asks the brokers where the partitions of the topics end now; for threads other than the reader's."""

    def __init__(self, bootstrap: str, topics: Sequence[str]) -> None:
        self._admin = AdminClient(_client(bootstrap))
        self._topics = tuple(topics)

    def __call__(self) -> dict[Partition, int]:
        """Partition -> offset after its last committed record; raises LogUnavailable."""
        try:
            found = self._admin.list_topics(timeout=3.0).topics
            asked = {
                TopicPartition(topic, partition): OffsetSpec.latest()  # type: ignore[no-untyped-call]
                for topic in self._topics
                if topic in found
                for partition in found[topic].partitions
            }
            if not asked:
                return {}
            futures = self._admin.list_offsets(
                asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=5.0
            )
            return {
                (place.topic, place.partition): int(future.result().offset)
                for place, future in futures.items()
            }
        except KafkaException as error:
            raise LogUnavailable(_text(error)) from error


def _client(bootstrap: str) -> dict[str, str | int | float | bool]:
    return {
        **kafka_security.librdkafka(bootstrap),
        "client.id": "driftlog-history",
        "reconnect.backoff.max.ms": 1_000,
        "socket.connection.setup.timeout.ms": 3_000,
        "topic.metadata.refresh.interval.ms": 5_000,
        "log_level": 2,
    }


def _part(topic: str, partition: int, messages: list[Message]) -> Part:
    return Part(
        topic,
        partition,
        [message.offset() or 0 for message in messages],
        [_bytes(message.key()) for message in messages],
        [_bytes(message.value()) for message in messages],
        [max(message.timestamp()[1], 0) for message in messages],
    )


def _bytes(data: str | bytes | None) -> bytes | None:
    return data.encode() if isinstance(data, str) else data


def _text(error: KafkaException) -> str:
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)
