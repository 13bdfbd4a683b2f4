"""Records as they were read, headers aside."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from schemas.event import Position

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One record."""

    at: Position
    key: bytes | None
    value: bytes | None
    recorded_ms: int


@dataclass(frozen=True, slots=True)
class Part:
    """Records of one partition in the order of their offsets: a list for each of their fields."""

    topic: str
    partition: int
    offsets: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    recorded_ms: list[int]

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> Record:
        at = Position(self.topic, self.partition, self.offsets[index])
        return Record(at, self.keys[index], self.values[index], self.recorded_ms[index])

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))
