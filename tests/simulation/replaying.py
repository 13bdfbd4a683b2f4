"""A simulated log, read as a replay reads the real one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from schemas.event import Event
from streams.merge import Merger
from streams.replay import Reader
from streams.simulation import Partition, SimulatedLog


def reader(log: SimulatedLog) -> Reader:
    """`streams.log.read` over a simulated log: merged by time of record, bounded by offsets."""

    def read(
        topics: Sequence[str],
        to: Mapping[Partition, int] | None = None,
        start: Mapping[Partition, int] | None = None,
    ) -> Iterator[Event]:
        merger = Merger()
        for key, records in log.records.items():
            if key[0] in topics and (to is None or key in to):
                for event in records[(start or {}).get(key, 0) : None if to is None else to[key]]:
                    merger.push(event)
        yield from merger.pop()

    return read


def whole(log: SimulatedLog) -> list[Event]:
    return list(reader(log)(sorted({topic for topic, _ in log.records})))
