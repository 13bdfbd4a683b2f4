"""Parts that stand where Kafka, Redis and a trained model stand in the real service."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.serving.core import Champion
from models.serving.metrics import Metrics
from models.serving.online import Blobs
from models.serving.service import Service
from schemas.catalogue import system_topics
from schemas.codec import Codec
from schemas.event import Event, Position
from streams.features import Blob
from streams.log import LogUnavailable
from streams.task import Category, Numeric, Observed, Rate, Task

NOW_MS = 1_372_680_000_000

FLIGHTS = Task(
    name="flights",
    features=(
        Numeric("distance"),
        Numeric("hour"),
        Category("carrier"),
        Category("origin"),
        Category("dest"),
        Rate("carrier_late", by=("carrier",)),
        Rate("route_late", by=("origin", "dest")),
        Observed("wind", by="origin", value="wind_speed"),
    ),
    label="late",
)


class Schemas:
    """A schema registry in a dict."""

    def __init__(self) -> None:
        self._schemas: list[Any] = []

    def schema_by_id(self, schema_id: int) -> Any:
        return self._schemas[schema_id - 1]

    def schema_id(self, subject: str, schema: Any) -> int:
        self._schemas.append(schema)
        return len(self._schemas)


def codec(task: Task = FLIGHTS) -> Codec:
    return Codec(Schemas(), [*system_topics(), *task.topics()])


class MemoryLog:
    """An EventLog in a list: what it holds went through the codec, so it fits the schema.

    While `broken` it acknowledges nothing; while `gate` is closed it makes appends wait.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.problem: str | None = None
        self.broken = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        self._codec = codec()

    async def append(self, events: Sequence[Event], timeout_s: float) -> None:
        encoded = [(event, self._codec.encode(event)) for event in events]
        self.waiting.set()
        await self.gate.wait()
        if self.broken:
            raise LogUnavailable(f"{len(events)} events not acknowledged in {timeout_s:.0f} s")
        for event, value in encoded:
            at = Position(event.topic, 0, len(self.events))
            self.events.append(self._codec.decode(at, value))


class MemoryStore:
    """An OnlineStore in a dict, which can be away."""

    def __init__(self) -> None:
        self.content: dict[str, Blob] = {}
        self.problem: str | None = None

    async def blobs(self, task: str, keys: Sequence[str]) -> Blobs | None:
        return None if self.problem else self.content.get


class Line:
    """A model whose score is `at` + distance / 10,000: a caller can see which version answered."""

    def __init__(self, at: float = 0.1) -> None:
        self.at = at

    def score(self, vectors: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
        return np.array([self.at + (v["distance"] or 0.0) / 10_000 for v in vectors])


def champion(version: str = "flights-1", at: float = 0.1) -> Champion:
    return Champion(version, Line(at), NOW_MS, "all gates passed")


def service(log: MemoryLog | None = None, store: MemoryStore | None = None) -> Service:
    """A service of FLIGHTS with a champion, its clock standing at NOW_MS."""
    made = Service(
        (FLIGHTS,),
        Metrics(),
        store or MemoryStore(),
        log or MemoryLog(),
        now_ms=lambda: NOW_MS,
    )
    made.desks["flights"].champion = champion()
    return made


def flight(**changes: Any) -> dict[str, Any]:
    """A valid instance, with changes; a change to `...` removes the field."""
    values = {
        "distance": 1089.0,
        "hour": 18.0,
        "carrier": "AA",
        "origin": "JFK",
        "dest": "ORD",
        **changes,
    }
    return {name: value for name, value in values.items() if value is not ...}
