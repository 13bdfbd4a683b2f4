"""Records as they were read, headers aside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from schemas.event import Position

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Record:
    """One record."""

    at: Position
    key: bytes | None
    value: bytes | None
    recorded_ms: int


@dataclass(slots=True)
class Part:
    """Records of one partition in the order of their offsets: a list for each of their fields."""

    topic: str
    partition: int
    offsets: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    recorded_ms: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets)

    def __getitem__(self, index: int) -> Record:
        at = Position(self.topic, self.partition, self.offsets[index])
        return Record(at, self.keys[index], self.values[index], self.recorded_ms[index])

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))


def parts(records: Iterable[Record]) -> list[Part]:
    """Records of any partitions as parts."""
    found: dict[Partition, Part] = {}
    for record in records:
        at = record.at
        part = found.setdefault((at.topic, at.partition), Part(at.topic, at.partition))
        part.offsets.append(at.offset)
        part.keys.append(record.key)
        part.values.append(record.value)
        part.recorded_ms.append(record.recorded_ms)
    return list(found.values())
