"""Finds events: where they stand by the history in ClickHouse, what they say from the log itself.

The history's tables are sorted by event id, so an id (or its beginning) is found among millions without
a scan; the record is then read from its topic, partition and offset. What the history does not hold yet is
looked for in the rest of the log.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import TopicPartition

from driftlog.causes import Wanted
from infra.clickhouse import moment, table_of
from models.history import History, quoted
from schemas.catalogue import Topic
from schemas.codec import Codec
from schemas.event import Event, Position
from streams import log
from streams.log import Partition

NEAR = 500
"""Records that are rather read over than sought past."""
NAMED = 5
"""Ids that the message about an ambiguous beginning names."""


class NoSuchEvent(Exception):
    """No event, or more than one, has such an id; the message says what to do."""


class EventIndex:
    """Events of an instance, by id, by fields, by request. Remembers what it has read."""

    def __init__(
        self, bootstrap: str, codec: Codec, topics: Sequence[Topic], history: History
    ) -> None:
        self._bootstrap, self._codec = bootstrap, codec
        self.history = history
        self._topics = {topic.name: topic for topic in topics}
        self._read: dict[Position, Event] = {}
        self._ids: dict[str, Event | None] = {}
        self._reader: RecordReader | None = None

    def close(self) -> None:
        self.history.close()
        if self._reader:
            self._reader.close()

    def resolve(self, text: str) -> Event:
        """The one event whose id is, or begins with, `text`; raises NoSuchEvent, HistoryUnavailable."""
        if not text:
            raise NoSuchEvent("the event id is empty")
        found = self._positions(self._beginning_with(text))
        exact = {event_id: at for event_id, at in found.items() if event_id == text}
        if not found:
            found = {event.id: event.at for event in self._unstored(text) if event.at}
        if not found:
            raise NoSuchEvent(
                f"no event's id begins with {text!r}: `driftlog watch` and `driftlog query` show ids"
            )
        chosen = exact or found
        if len(chosen) > 1:
            some = ", ".join(sorted(chosen)[:NAMED])
            raise NoSuchEvent(f"{text!r} is the beginning of more than one id: {some}; write more")
        (event,) = self._events(chosen.values())
        return event

    def by_id(self, event_id: str) -> Event | None:
        if event_id not in self._ids:
            found = self._positions(f"event_id = {quoted(event_id)}")
            events = self._events(found.values())
            self._ids[event_id] = events[0] if events else None
        return self._ids[event_id]

    def find(self, wanted: Wanted) -> list[Event]:
        if wanted.topic not in self._topics:
            return []
        condition = " AND ".join(self._conditions(wanted))
        last = ""
        if wanted.newest is not None:
            last = f" ORDER BY event_time DESC, _partition, _offset LIMIT {wanted.newest}"
        rows = self.history.query(self._places(wanted.topic, condition, last))
        return sorted(self._events(_first(rows.to_pylist()).values()), key=_order)

    def count(self, wanted: Wanted) -> int:
        if wanted.topic not in self._topics:
            return 0
        condition = " AND ".join(self._conditions(wanted))
        sql = f"SELECT uniqExact(event_id) AS n FROM {table_of(wanted.topic)} WHERE {condition}"  # noqa: S608
        return int(self.history.query(sql).to_pylist()[0]["n"])

    def of_request(self, request_id: str) -> list[Event]:
        topics = [name for name, topic in self._topics.items() if _has(topic, "request_id")]
        parts = [self._places(name, f"request_id = {quoted(request_id)}") for name in topics]
        rows = self.history.query(" UNION ALL ".join(parts)).to_pylist() if parts else []
        return sorted(self._events(_first(rows).values()), key=lambda e: (e.recorded_ms, e.id))

    def _positions(self, condition: str) -> dict[str, Position]:
        parts = [self._places(name, condition, f" LIMIT {2 * NAMED}") for name in self._topics]
        return _first(self.history.query(" UNION ALL ".join(parts)).to_pylist())

    @staticmethod
    def _places(topic: str, condition: str, last: str = "") -> str:
        return (
            f"(SELECT event_id, {quoted(topic)} AS topic, _partition AS part, _offset AS place"  # noqa: S608
            f" FROM {table_of(topic)} WHERE {condition}{last})"
        )

    @staticmethod
    def _beginning_with(text: str) -> str:
        return f"startsWith(event_id, {quoted(text)})"

    def _conditions(self, wanted: Wanted) -> Iterator[str]:
        times = _times(self._topics[wanted.topic])
        if wanted.type:
            yield f"_type = {quoted(wanted.type)}"
        for name, value in wanted.equals.items():
            yield f"{_column(name, times)} = {_literal(value)}"
        if wanted.since is not None:
            yield f"event_time >= {moment(wanted.since)}"
        if wanted.until is not None:
            yield f"event_time <= {moment(wanted.until)}"

    def _unstored(self, text: str) -> list[Event]:
        """Events that begin with `text` in what the history does not hold yet."""
        consumer = log.make_consumer(self._bootstrap)
        try:
            ends = log.end_offsets(consumer, log.partitions_of(consumer, list(self._topics)))
        finally:
            consumer.close()
        stored = self.history.positions(ends)
        behind = {key: end for key, end in ends.items() if end > stored[key]}
        topics = sorted({topic for topic, _ in behind})
        if not topics:
            return []
        events = log.read(self._bootstrap, self._codec, topics, to=behind, start=stored)
        found: dict[str, Event] = {}
        for event in events:
            if event.id.startswith(text) and event.at:
                found.setdefault(event.id, event)
                self._read[event.at] = event
        return list(found.values())

    def _events(self, places: Iterable[Position]) -> list[Event]:
        wanted = list(places)
        missing = [place for place in wanted if place not in self._read]
        if missing:
            self._reader = self._reader or RecordReader(self._bootstrap, self._codec)
            read = self._reader.read(missing)
            self._read |= read
            self._ids |= {event.id: event for event in read.values()}
        return [self._read[place] for place in wanted if place in self._read]


class RecordReader:
    """Reads single records of the log by their places; one connection for all of them."""

    def __init__(self, bootstrap: str, codec: Codec) -> None:
        self._codec = codec
        self._consumer = log.make_consumer(bootstrap)

    def read(self, places: Iterable[Position]) -> dict[Position, Event]:
        """The events at these places, those that can be decoded; raises LogUnavailable.

        Places of a partition that lie near each other are read in one go.
        """
        runs: dict[Partition, list[list[int]]] = {}
        for place in sorted(set(places)):
            of_partition = runs.setdefault((place.topic, place.partition), [])
            if of_partition and place.offset - of_partition[-1][-1] <= NEAR:
                of_partition[-1].append(place.offset)
            else:
                of_partition.append([place.offset])
        found: dict[Position, Event] = {}
        while runs:
            now = {key: of_partition.pop(0) for key, of_partition in runs.items()}
            runs = {key: of_partition for key, of_partition in runs.items() if of_partition}
            found |= {event.at: event for event in self._together(now) if event.at}
        return found

    def close(self) -> None:
        self._consumer.close()

    def _together(self, wanted: Mapping[Partition, list[int]]) -> Iterator[Event]:
        """One run of offsets in each of these partitions."""
        begins = [TopicPartition(*key, run[0]) for key, run in sorted(wanted.items())]
        self._consumer.assign(begins)
        left = {key: set(offsets) for key, offsets in wanted.items()}
        quiet_since = time.monotonic()
        while left:
            messages = log.poll_batch(self._consumer, 1_000, 0.5)
            if messages:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > log.QUIET_SECONDS:
                raise log.LogUnavailable(f"nothing came for {log.QUIET_SECONDS} s")
            for message in messages:
                key = message.topic(), message.partition()
                offset, error = message.offset(), message.error()
                if key not in left or offset is None:
                    continue
                if error is None and offset in left[key]:
                    item = log.decode(self._codec, message)
                    if isinstance(item, Event):
                        yield item
                if offset >= wanted[key][-1]:  # an end-of-partition mark, too, is past it
                    del left[key]
        self._consumer.unassign()


def _first(rows: Iterable[Mapping[str, Any]]) -> dict[str, Position]:
    """The first record of each id: repeats say the same."""
    found: dict[str, Position] = {}
    for row in rows:
        place = Position(row["topic"], row["part"], row["place"])
        if row["event_id"] not in found or place < found[row["event_id"]]:
            found[row["event_id"]] = place
    return found


def _order(event: Event) -> tuple[int, str, int, int]:
    at = event.at or Position("", 0, 0)
    return (event.time, at.topic, at.partition, at.offset)


def _has(topic: Topic, name: str) -> bool:
    return any(field["name"] == name for schema in topic.schemas for field in schema["fields"])


def _times(topic: Topic) -> set[str]:
    """Fields of the topic's events that are moments: the history holds them as such."""
    return {
        field["name"]
        for schema in topic.schemas
        for field in schema["fields"]
        if "timestamp-millis" in str(field["type"])
    }


def _column(name: str, times: set[str]) -> str:
    return f"toUnixTimestamp64Milli({name})" if name in times else name


def _literal(value: object) -> str:
    return quoted(value) if isinstance(value, str) else str(value).lower()
