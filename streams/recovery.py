"""What every live runner does besides reacting: recover its folds, state their hashes, keep checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from schemas.catalogue import STATE_HASHES
from schemas.codec import Codec
from schemas.event import Event, derive
from streams import checkpoint, log
from streams.checkpoint import CheckpointRefused, CountingProjector
from streams.fold import Fold, Projector
from streams.replay import rebuild, topic_ids

logger = structlog.get_logger()
CHECKPOINT_SECONDS = 60.0
CHECKPOINT_EVENTS = 10_000
"""Fewer events are read again faster than a checkpoint is written."""


def recover(
    bootstrap: str,
    codec: Codec,
    group: str,
    folds: Sequence[Fold],
    checkpoints: Path | None = None,
) -> CountingProjector:
    """Folds as they stood at the group's committed offsets: everything before was reacted to, nothing after.

    The log is the state store; a fitting one of the `checkpoints` in that folder saves a part of the way.
    Raises LogUnavailable.
    """
    topics = sorted({topic for fold in folds for topic in fold.topics})
    consumer = log.make_consumer(bootstrap, group)
    try:
        partitions = log.partitions_of(consumer, topics)
        committed = log.committed_offsets(consumer, partitions)
    finally:
        consumer.close()
    started = time.monotonic()
    projector = rebuild(bootstrap, codec, folds, to=committed, checkpoints=checkpoints)
    for (topic, partition), offset in committed.items():
        projector.skip_to(topic, partition, offset)
    logger.info(
        "recovered", group=group, events=projector.events, seconds=time.monotonic() - started
    )
    return projector


class CheckpointKeeper:
    """Saves a live projector now and then, after what it holds has been committed."""

    def __init__(
        self,
        bootstrap: str,
        folder: Path,
        seconds: float = CHECKPOINT_SECONDS,
        events: int = CHECKPOINT_EVENTS,
    ) -> None:
        self._bootstrap = bootstrap
        self._folder = folder
        self._seconds = seconds
        self._events = events
        self._saved_at = time.monotonic()
        self._saved_events = 0

    def keep(self, projector: Projector) -> None:
        """Save if enough time and events have passed; a disk that is full stops nobody's work."""
        now = time.monotonic()
        if (
            now - self._saved_at < self._seconds
            or projector.events < self._saved_events + self._events
        ):
            return
        try:
            ids = topic_ids(self._bootstrap, projector.topics)
            path = checkpoint.save(projector, self._folder, ids)
            logger.info("checkpoint", file=path.name[:12], events=projector.events)
        except (CheckpointRefused, OSError) as error:
            logger.warning("no checkpoint", error=str(error))
        self._saved_at, self._saved_events = time.monotonic(), projector.events


def state_hashes(projector: Projector) -> list[Event]:
    """One StateHashed per fold, at the projector's offsets."""
    return [
        state_hashed(
            fold.name,
            projector.fingerprint(fold.name),
            {key: offset for key, offset in projector.offsets.items() if key[0] in fold.topics},
            projector.events,
        )
        for fold in projector.folds
    ]


def state_hashed(fold: str, sha256: str, offsets: log.Offsets, events: int) -> Event:
    """A live fold's fingerprint at `offsets`, after `events` events."""
    at = [(topic, partition, offset) for (topic, partition), offset in sorted(offsets.items())]
    return derive(
        STATE_HASHES,
        "StateHashed",
        *(fold, sha256, at),
        time=int(time.time() * 1000),
        caused_by=None,
        fold=fold,
        offsets=[{"topic": t, "partition": p, "offset": offset} for t, p, offset in at],
        sha256=sha256,
        events=events,
    )
