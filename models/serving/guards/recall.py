"""What a request that was begun before has in the log already: a retry says that, not something new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from models.serving.guards.once import pinned
from schemas.codec import Codec
from schemas.errors import UndecodableEvent
from schemas.event import Event, Position
from streams.log import LogUnavailable, end_offsets, make_consumer, partitions_of, poll_batch

EARLIER_MS = 5_000
"""Replicas' clocks may differ by so much."""
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class _Wanted:
    topic: str
    ids: frozenset[str]
    since: int
    found: asyncio.Future[dict[str, Event]]


class Recall:
    """Looks `since` a request was begun, by the time of record, for the events it would make.

    When a replica dies, all its callers come at once: those that come while one look is under way share
    the next.
    """

    def __init__(self, bootstrap: str, codec: Codec) -> None:
        self._bootstrap = bootstrap
        self._codec = codec
        self._wanted: list[_Wanted] = []
        self._looking: asyncio.Task[None] | None = None

    async def __call__(self, events: Sequence[Event]) -> Sequence[Event]:
        """`events`, each as the log has it if it does; raises LogUnavailable if it cannot be read."""
        now = pinned.get()
        if now is None or not now.again or not events:
            return events
        told: asyncio.Future[dict[str, Event]] = asyncio.get_running_loop().create_future()
        ids = frozenset(event.id for event in events)
        self._wanted.append(_Wanted(events[0].topic, ids, now.since, told))
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        found = await told
        return [found.get(event.id, event) for event in events]

    async def _look(self) -> None:
        while self._wanted:
            topic = self._wanted[0].topic
            mine = [one for one in self._wanted if one.topic == topic]
            self._wanted = [one for one in self._wanted if one.topic != topic]
            ids = {each for one in mine for each in one.ids}
            since = min(one.since for one in mine)
            try:
                found = await asyncio.to_thread(self._find, topic, ids, since)
            except Exception as error:  # each of them is to hear it
                for one in mine:
                    if not one.found.done():
                        one.found.set_exception(error)
            else:
                for one in mine:
                    if not one.found.done():
                        one.found.set_result(found)

    def _find(self, topic: str, wanted: set[str], since: int) -> dict[str, Event]:
        found: dict[str, Event] = {}
        consumer = make_consumer(self._bootstrap, "driftlog-recall")
        try:
            partitions = partitions_of(consumer, [topic])
            ends = end_offsets(consumer, partitions)
            asked = [TopicPartition(*key, since - EARLIER_MS) for key in partitions]
            begins = consumer.offsets_for_times(asked, timeout=10)
            open_ = {
                (begin.topic, begin.partition): begin.offset
                for begin in begins
                if 0 <= begin.offset < ends[begin.topic, begin.partition]
            }
            consumer.assign([TopicPartition(*key, offset) for key, offset in open_.items()])
            deadline = time.monotonic() + PATIENCE_S
            while open_ and len(found) < len(wanted):
                if time.monotonic() > deadline:
                    raise LogUnavailable("what was logged before could not be read in time")
                for message in poll_batch(consumer, 1_000, 0.2):
                    key = str(message.topic()), message.partition() or 0
                    if message.error() is not None:
                        if key in open_ and _at_end(message):
                            del open_[key]
                        continue
                    self._take(message, wanted, found)
        except KafkaException as error:
            raise LogUnavailable(f"no broker answers: {error.args[0].str()}") from error
        finally:
            consumer.close()
        return found

    def _take(self, message: Message, wanted: set[str], found: dict[str, Event]) -> None:
        at = Position(str(message.topic()), message.partition() or 0, message.offset() or 0)
        if (message.key() or b"").decode("utf-8", "replace") not in wanted:
            return
        try:
            event = self._codec.decode(at, message.value(), message.timestamp()[1])
        except UndecodableEvent:
            return
        found.setdefault(event.id, event)


def _at_end(message: Message) -> bool:
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF
