"""What every live runner does besides reacting: recover its folds from the log, and state their hashes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog
from confluent_kafka import TopicPartition

from schemas.catalogue import STATE_HASHES
from schemas.codec import Codec
from schemas.event import Event, derive
from streams import log
from streams.fold import Fold, Projector

logger = structlog.get_logger()


def recover(bootstrap: str, codec: Codec, group: str, folds: Sequence[Fold]) -> Projector:
    """Folds as they stood at the group's committed offsets: everything before was reacted to, nothing after.

    The log is the state store. Raises LogUnavailable.
    """
    projector = Projector(folds)
    consumer = log.make_consumer(bootstrap, group)
    try:
        partitions = log.partitions_of(consumer, projector.topics)
        wanted = [TopicPartition(topic, partition) for topic, partition in partitions]
        committed = {
            (str(found.topic), found.partition): max(found.offset, 0)
            for found in consumer.committed(wanted, timeout=15)
        }
    finally:
        consumer.close()
    started = time.monotonic()
    batch: list[Event] = []
    for event in log.read(bootstrap, codec, projector.topics, to=committed):
        batch.append(event)
        if len(batch) == 5_000:
            projector.feed(batch)
            batch.clear()
    projector.feed(batch)
    for (topic, partition), offset in committed.items():
        projector.skip_to(topic, partition, offset)
    logger.info(
        "recovered", group=group, events=projector.events, seconds=time.monotonic() - started
    )
    return projector


def state_hashes(projector: Projector) -> list[Event]:
    """One StateHashed per fold, at the projector's offsets."""
    events = []
    for fold in projector.folds:
        offsets = [
            {"topic": topic, "partition": partition, "offset": offset}
            for (topic, partition), offset in sorted(projector.offsets.items())
            if topic in fold.topics
        ]
        sha256 = projector.fingerprint(fold.name)
        at = [(o["topic"], o["partition"], o["offset"]) for o in offsets]
        events.append(
            derive(
                STATE_HASHES,
                "StateHashed",
                *(fold.name, sha256, at),
                time=int(time.time() * 1000),
                caused_by=None,
                fold=fold.name,
                offsets=offsets,
                sha256=sha256,
                events=projector.events,
            )
        )
    return events
