"""Follows single-partition topics from the start to the end and on, and says when there is news."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.codec import Codec
from schemas.errors import RegistryUnavailable, UndecodableEvent
from schemas.event import Event, Position
from streams.fold import Projector
from streams.log import make_consumer, poll_batch

logger = structlog.get_logger()

POLL_S = 0.25
RETRY_S = 1.0


@dataclass(slots=True)
class _Read:
    """What one poll brought."""

    events: list[Event] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    """Topics of which the end was reached."""


class Follower:
    """Feeds a projector; no consumer group, since every instance reads everything."""

    def __init__(
        self,
        bootstrap: str,
        codec: Codec,
        topics: Sequence[str],
        projector: Projector,
        on_news: Callable[[], Awaitable[None]],
    ) -> None:
        self._bootstrap = bootstrap
        self._codec = codec
        self._topics = topics
        self._projector = projector
        self._on_news = on_news

    async def run(self) -> None:
        """Until cancelled. `on_news` is called once the end is first reached, then after each batch."""
        while True:
            try:
                await self._follow()
            except (KafkaException, RegistryUnavailable) as error:
                logger.warning("registry follower starts again", reason=str(error))
            await asyncio.sleep(RETRY_S)

    async def _follow(self) -> None:
        # Events are few and far between here; one that comes ends the wait at once.
        extra = {"fetch.wait.max.ms": 500}
        consumer = make_consumer(self._bootstrap, "driftlog-serving", **extra)
        offsets = self._projector.offsets
        consumer.assign([TopicPartition(t, 0, offsets.get((t, 0), 0)) for t in self._topics])
        behind = set(self._topics)
        polling: asyncio.Future[_Read] | None = None
        try:
            while True:
                polling = asyncio.ensure_future(asyncio.to_thread(self._poll, consumer))
                read = await asyncio.shield(polling)
                self._projector.feed(read.events)
                was_behind, behind = behind, behind - read.ended
                if not behind and (was_behind or read.events):
                    await self._on_news()
        finally:
            if polling is not None:
                await asyncio.wait({polling})
            consumer.close()

    def _poll(self, consumer: Consumer) -> _Read:
        """Runs in a thread. Raises KafkaException, or RegistryUnavailable if the codec cannot ask it."""
        read = _Read()
        for message in poll_batch(consumer, 1_000, POLL_S):
            error = message.error()
            at = Position(str(message.topic()), message.partition() or 0, message.offset() or 0)
            if error is not None:
                if error.code() != KafkaError._PARTITION_EOF:
                    raise KafkaException(error)
                read.ended.add(at.topic)
                continue
            value = message.value()
            try:
                read.events.append(self._codec.decode(at, value, message.timestamp()[1]))
            except UndecodableEvent as bad:
                logger.warning("record skipped", at=str(at), reason=str(bad))
        return read
