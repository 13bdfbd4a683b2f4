"""The `<topic>.dlq` topics: what could not be decoded, with its cause and coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from consumers.history.blocks import DeadLetter
from infra import kafka_security
from schemas.catalogue import DLQ_SUFFIX

if TYPE_CHECKING:
    from confluent_kafka import Producer

_CONNECT = "__connect.errors."  # the names that Kafka Connect uses, so that its tools read them

_MAX_VALUE = (
    1_000_000  # bytes; with its headers a longer one may pass the broker's limit for a record
)


class DeadLettersUnacknowledged(Exception):
    """The log did not acknowledge a dead letter; it must be sent again."""


class DeadLetterQueue:
    """Sends dead letters to `<topic>.dlq`, which it creates when the first one comes."""

    def __init__(self, bootstrap: str, replication: int) -> None:
        self._bootstrap = bootstrap
        self._replication = replication
        self._producer: Producer | None = None
        self._created: set[str] = set()
        self._sent: dict[str, set[tuple[int, int]]] = {}

    def publish(self, letters: Sequence[DeadLetter]) -> None:
        """Returns once the log has them all; raises DeadLettersUnacknowledged."""
        from confluent_kafka import KafkaException

        try:
            for letter in letters:
                self._send(letter)
            self._flush()
        except (KafkaException, BufferError) as error:
            raise DeadLettersUnacknowledged(str(error)) from error
        missing = sum(not self._is_sent(letter) for letter in letters)
        if missing:
            raise DeadLettersUnacknowledged(f"{missing} of {len(letters)} were refused")

    def mark_sent(self, topic: str, partition: int, offset: int) -> None:
        """It was sent before: do not send it again."""
        self._sent.setdefault(topic, set()).add((partition, offset))

    def _is_sent(self, letter: DeadLetter) -> bool:
        return (letter.at.partition, letter.at.offset) in self._sent.get(letter.at.topic, ())

    def _flush(self) -> None:
        if self._producer is not None and self._producer.flush(15.0):
            self._producer.purge()
            self._producer.flush(1.0)
            self._producer = None
            raise DeadLettersUnacknowledged("no acknowledgement within 15 s")

    def _send(self, letter: DeadLetter) -> None:
        at = letter.at
        if self._is_sent(letter):
            return
        producer = self._open(at.topic + DLQ_SUFFIX)
        producer.produce(
            at.topic + DLQ_SUFFIX,
            key=letter.key,
            value=letter.value if len(letter.value or b"") <= _MAX_VALUE else None,
            timestamp=letter.recorded_ms,
            headers=[(name, text.encode()) for name, text in headers(letter).items()],
            on_delivery=lambda error, _: (
                None if error else self.mark_sent(at.topic, at.partition, at.offset)
            ),
        )
        producer.poll(0)

    def _open(self, topic: str) -> Producer:
        from confluent_kafka import KafkaException, Producer
        from confluent_kafka.admin import AdminClient
        from confluent_kafka.cimpl import NewTopic

        if self._producer is None:
            self._producer = Producer(
                {
                    **kafka_security.librdkafka(self._bootstrap),
                    "client.id": "driftlog-history-dlq",
                    "enable.idempotence": True,
                    "acks": "all",
                    "compression.type": "lz4",
                    "message.max.bytes": 2_000_000,
                    "delivery.timeout.ms": 14_000,
                    "linger.ms": 5,
                }
            )
        if topic not in self._created:
            admin = AdminClient({**kafka_security.librdkafka(self._bootstrap)})
            made = admin.create_topics([NewTopic(topic, 1, self._replication)], operation_timeout=5)
            try:
                made[topic].result()
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise
            self._created.add(topic)
        return self._producer


def headers(letter: DeadLetter) -> dict[str, str]:
    """The record headers of a dead letter: where it stood, and what is wrong with it."""
    message = letter.message
    if len(letter.value or b"") > _MAX_VALUE:
        message += " (value left out: read it at its coordinates)"
    return {
        f"{_CONNECT}topic": letter.at.topic,
        f"{_CONNECT}partition": str(letter.at.partition),
        f"{_CONNECT}offset": str(letter.at.offset),
        f"{_CONNECT}exception.class.name": letter.error,
        f"{_CONNECT}exception.message": message,
    }
