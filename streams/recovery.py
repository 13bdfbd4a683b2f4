"""What every live runner does besides reacting: recover its folds from the log, and state their hashes."""

from __future__ import annotations

import time
from collections.abc import Sequence

import structlog

from schemas.catalogue import STATE_HASHES
from schemas.codec import Codec
from schemas.event import Event, derive
from streams import log
from streams.fold import Fold, Projector
from streams.replay import rebuild

logger = structlog.get_logger()


def recover(bootstrap: str, codec: Codec, group: str, folds: Sequence[Fold]) -> Projector:
    """Folds as they stood at the group's committed offsets: everything before was reacted to, nothing after.

    The log is the state store. Raises LogUnavailable.
    """
    topics = sorted({topic for fold in folds for topic in fold.topics})
    consumer = log.make_consumer(bootstrap, group)
    try:
        partitions = log.partitions_of(consumer, topics)
        committed = log.committed_offsets(consumer, partitions)
    finally:
        consumer.close()
    started = time.monotonic()
    projector = rebuild(bootstrap, codec, folds, to=committed)
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
