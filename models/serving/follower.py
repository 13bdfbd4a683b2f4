"""Follows topics of one partition from the start to the end and on, and says when there is news."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.codec import Codec
from schemas.errors import RegistryUnavailable, UndecodableEvent
from schemas.event import Event, Position
from streams.fold import Projector

logger = structlog.get_logger()

CHECK_S = 5.0
STUCK_S = 20.0
"""A consumer that does not move for so long while there is something to read is replaced."""
RETRY_S = 1.0


class Stuck(Exception):
    """The consumer does not move although there is something to read."""


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
        self._partitions = [TopicPartition(topic, 0) for topic in topics]
        self._projector = projector
        self._on_news = on_news

    async def run(self) -> None:
        """Until cancelled. `on_news` is called once the end as of the start is reached, then per batch."""
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=self._bootstrap,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                request_timeout_ms=5_000,
                metadata_max_age_ms=2_000,
                retry_backoff_ms=100,
            )
            try:
                await consumer.start()
                await self._follow(consumer)
            except (KafkaError, RegistryUnavailable, Stuck, OSError) as error:
                logger.warning("registry follower starts again", reason=repr(error))
            finally:
                await consumer.stop()
            await asyncio.sleep(RETRY_S)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._partitions)
        for partition in self._partitions:
            consumer.seek(partition, self._projector.offsets.get((partition.topic, 0), 0))
        ends: dict[TopicPartition, int] = await consumer.end_offsets(self._partitions)
        behind, moved, checked = True, time.monotonic(), time.monotonic()
        while True:
            records = await consumer.getmany(timeout_ms=500, max_records=1_000)
            now = time.monotonic()
            if records:
                moved = now
                events = await asyncio.to_thread(self._decode, records)
                self._projector.feed(events)
            if behind:
                behind = await self._is_behind(consumer, ends)
                if not behind:
                    await self._on_news()
            elif records:
                await self._on_news()
            if now - checked > CHECK_S:
                checked = now
                ends = await consumer.end_offsets(self._partitions)
                if not await self._is_behind(consumer, ends):
                    moved = now
                elif now - moved > STUCK_S:
                    raise Stuck(f"at rest for {now - moved:.0f} s with records to read")

    async def _is_behind(self, consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
        return any([await consumer.position(p) < ends[p] for p in self._partitions])

    def _decode(self, records: dict[TopicPartition, list[Any]]) -> list[Event]:
        """Runs in a thread: the codec may have to ask the schema registry. Raises RegistryUnavailable."""
        events = []
        for partition, batch in records.items():
            for record in batch:
                at = Position(partition.topic, partition.partition, record.offset)
                try:
                    events.append(self._codec.decode(at, record.value, record.timestamp))
                except UndecodableEvent as error:
                    logger.warning("record skipped", at=str(at), reason=str(error))
        return events
