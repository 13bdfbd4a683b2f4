"""A small history for tests: a registry in memory, events of a task, and their records."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from consumers.history.record import Part, Partition, Record
from schemas.catalogue import Topic, system_topics, task_topics
from schemas.codec import Codec
from schemas.errors import RegistryUnavailable, UnknownSchema
from schemas.event import Event, Position

FEATURES = {"distance": "double", "carrier": "string"}
TOPICS: tuple[Topic, ...] = (*system_topics(), *task_topics("flights", FEATURES, ["temp"]))
START = 1_700_000_000_000


class MemoryRegistry:
    """Ids are places in the list of topics; `up` says whether it answers."""

    def __init__(self, topics: Sequence[Topic] = TOPICS) -> None:
        self._topics = list(topics)
        self.up = True

    def schema_id(self, subject: str, schema: Any) -> int:
        assert any(
            topic.subject == subject and topic.value_schema == schema for topic in self._topics
        )
        return 1 + [topic.subject for topic in self._topics].index(subject)

    def schema_by_id(self, schema_id: int) -> Any:
        if not self.up:
            raise RegistryUnavailable("the registry is down")
        if not 0 < schema_id <= len(self._topics):
            raise UnknownSchema(f"schema {schema_id} is unknown")
        return self._topics[schema_id - 1].value_schema


def uid(number: int) -> str:
    return str(uuid.UUID(int=number))


def prediction(number: int, **changes: Any) -> Event:
    data = {
        "event_id": uid(number),
        "event_time": START + 60_000 * number,
        "caused_by": None,
        "model_version": f"flights-{1 + number % 2}",
        "score": (number % 10) / 10,
        "label": int(number % 10 >= 5),
        "features": {"distance": 100.0 * number, "carrier": ["AA", "UA", None][number % 3]},
    }
    return Event("flights.predictions", "PredictionMade", data | changes)


def label(number: int) -> Event:
    data = {
        "event_id": uid(10_000 + number),
        "event_time": START + 60_000 * number + 3_600_000,
        "caused_by": uid(number),
        "prediction_id": uid(number),
        "label": number % 2,
    }
    return Event("flights.labels", "LabelObserved", data)


def records(
    codec: Codec, events: Sequence[Event], offset: int = 0, partition: int = 0
) -> list[Record]:
    """The events as records of one partition of their topic."""
    return [
        Record(
            Position(event.topic, partition, offset + index),
            codec.key(event),
            codec.encode(event),
            START + index,
        )
        for index, event in enumerate(events)
    ]


def parts(records: Iterable[Record]) -> list[Part]:
    """Records of any partitions as parts."""
    found: dict[Partition, Part] = {}
    for record in records:
        at = record.at
        part = found.setdefault(
            (at.topic, at.partition), Part(at.topic, at.partition, [], [], [], [])
        )
        part.offsets.append(at.offset)
        part.keys.append(record.key)
        part.values.append(record.value)
        part.recorded_ms.append(record.recorded_ms)
    return list(found.values())
