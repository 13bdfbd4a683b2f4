"""A record as it was read."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.event import Position


@dataclass(frozen=True, slots=True)
class Record:
    """A record as it was read, headers aside."""

    at: Position
    key: bytes | None
    value: bytes | None
    recorded_ms: int
