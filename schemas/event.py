"""The event: one immutable fact, and where in the log it stands."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:driftlog:event")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A record's place in the log."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


@dataclass(frozen=True, slots=True)
class Event:
    """A fact: `type` is its schema's record name, `data` all its fields (times as ms since the epoch).

    `at` and `recorded_ms` (the record's Kafka timestamp) are there once it has been read from the log.
    """

    topic: str
    type: str
    data: Mapping[str, Any]
    at: Position | None = None
    recorded_ms: int = 0

    @property
    def id(self) -> str:
        return str(self.data["event_id"])

    @property
    def time(self) -> int:
        """Event time, ms since the epoch."""
        return int(self.data["event_time"])


def derived_id(event_type: str, *cause: object) -> str:
    """UUIDv5 of what led to an event: a replay or a second try makes the same id."""
    name = "|".join([event_type, *map(str, cause)])
    digest = bytearray(
        hashlib.sha1(NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest()[:16]
    )
    digest[6] = digest[6] & 0x0F | 0x50  # uuid.uuid5 takes twice as long over the same
    digest[8] = digest[8] & 0x3F | 0x80
    found = digest.hex()
    return f"{found[:8]}-{found[8:12]}-{found[12:16]}-{found[16:20]}-{found[20:]}"


def derive(
    topic: str, event_type: str, *cause: object, time: int, caused_by: str | None, **fields: Any
) -> Event:
    """A new event whose id is derived from `cause`; `time` is its event time in ms."""
    data = {
        "event_id": derived_id(event_type, *cause),
        "event_time": time,
        "caused_by": caused_by,
        **fields,
    }
    return Event(topic, event_type, data)
