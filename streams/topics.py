"""Create the catalogue's topics and register their schemas; doing it again changes nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from infra import kafka_security
from schemas.catalogue import DLQ_SUFFIX, Topic
from schemas.codec import SchemaRegistry
from schemas.errors import RegistryUnavailable
from streams.log import CLIENT_SETTINGS, LogUnavailable

KEEP_FOR_EVER = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}


def ensure_topics(
    bootstrap: str, topics: Sequence[Topic], replication: int, timeout_s: float = 60.0
) -> list[str]:
    """Create what is missing (each topic and its `.dlq`) and return the new names; raises LogUnavailable."""
    admin = AdminClient({**CLIENT_SETTINGS, **kafka_security.librdkafka(bootstrap)})
    wanted = {
        name: partitions
        for topic in topics
        for name, partitions in ((topic.name, topic.partitions), (topic.name + DLQ_SUFFIX, 1))
    }
    config = {**KEEP_FOR_EVER, "min.insync.replicas": str(2 if replication >= 3 else 1)}
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            left = deadline - time.monotonic()
            existing = admin.list_topics(timeout=min(10.0, max(1.0, left))).topics
            missing = {name: count for name, count in wanted.items() if name not in existing}
            if missing:
                _create(admin, missing, replication, config)
            return sorted(missing)
        except KafkaException as error:
            if time.monotonic() > deadline:
                raise LogUnavailable(f"topics not created: {error.args[0].str()}") from error
            time.sleep(0.5)


def _create(
    admin: AdminClient, missing: dict[str, int], replication: int, config: dict[str, str]
) -> None:
    new = [
        NewTopic(name, num_partitions=count, replication_factor=replication, config=config)
        for name, count in missing.items()
    ]
    for future in admin.create_topics(new, operation_timeout=20).values():
        try:
            future.result(timeout=30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def register_schemas(
    registry: SchemaRegistry, topics: Sequence[Topic], timeout_s: float = 60.0
) -> None:
    """Register each topic's schema under `<topic>-value`.

    Raises IncompatibleSchema, or RegistryUnavailable if the registry is away for `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    for topic in topics:
        while True:
            try:
                registry.schema_id(topic.subject, topic.value_schema)
            except RegistryUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                break
