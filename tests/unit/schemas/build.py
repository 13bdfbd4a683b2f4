"""Events, schemas and bytes that the tests of this folder share."""

from __future__ import annotations

import struct
from typing import Any

from schemas.event import Event, Position, derive

START = 1_700_000_000_000


def at(topic: str, offset: int = 0) -> Position:
    return Position(topic, 0, offset)


def alert(kind: str = "AlertRaised", **changed: Any) -> Event:
    fields = {"task": "demo", "subject": "drift", "message": "PSI 0.31 > 0.1"} | changed
    return derive("driftlog.alerts", kind, "x", time=START, caused_by=None, **fields)


def prediction(**changed: Any) -> Event:
    fields: dict[str, Any] = {
        "model_version": "demo-1",
        "score": 0.25,
        "label": 0,
        "features": {"distance": 812.5, "carrier": "UA"},
        "route": None,
        "degraded": None,
    }
    fields |= changed
    return derive("demo.predictions", "PredictionMade", "x", time=START, caused_by=None, **fields)


def record(*fields: dict[str, Any], name: str = "Thing", **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "demo", "fields": list(fields), **more}


def field(name: str, type_: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "type": type_, **more}


def event_record(*fields: dict[str, Any], name: str = "Thing") -> dict[str, Any]:
    """A record that is an event, as a foreign writer may have it."""
    return record(field("event_id", "string"), field("event_time", "long"), *fields, name=name)


def framed(schema_id: int, body: bytes) -> bytes:
    """Confluent wire format."""
    return struct.pack(">bI", 0, schema_id) + body


def bomb() -> dict[str, Any]:
    """1 MB of 0x02 nests this until the reader's stack ends."""
    return event_record(field("next", ["null", "demo.Thing"]))
