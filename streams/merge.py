"""Merge partitions by the time of record, so that a reader with a backlog meets them as they were written.

Order within a partition is kept; across partitions the earlier record comes first. Folds do not need this
to be right; windows need it to close once instead of being restated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from schemas.event import Event

Partition = tuple[str, int]


class Merger:
    """While one of the `waiting` partitions (more is to come) has nothing queued, the rest waits for it.

    So whoever fills it keeps the partitions side by side (see `streams.log.Balance`).
    """

    def __init__(self, waiting: Iterable[Partition] = ()) -> None:
        self._count = 0
        self._waiting = set(waiting)
        self._queues: dict[Partition, deque[Event]] = {}
        self._heads: list[tuple[int, Partition]] = []
        self._starved = len(self._waiting)

    def __len__(self) -> int:
        return self._count

    def queued(self, partition: Partition) -> int:
        """Events of one partition that wait here."""
        return len(self._queues.get(partition, ()))

    def push(self, event: Event) -> None:
        assert event.at is not None
        key = event.at.topic, event.at.partition
        queue = self._queues.setdefault(key, deque())
        if not queue:
            heappush(self._heads, (event.recorded_ms, key))
            self._starved -= key in self._waiting
        queue.append(event)
        self._count += 1

    def open(self, partition: Partition) -> None:
        """More is to come from `partition`."""
        if partition not in self._waiting:
            self._waiting.add(partition)
            self._starved += not self._queues.get(partition)

    def close(self, partition: Partition) -> None:
        """Nothing more comes for now from `partition`: its end was reached."""
        if partition in self._waiting:
            self._waiting.discard(partition)
            self._starved -= not self._queues.get(partition)

    def pop(self) -> Iterator[Event]:
        """What may be handed on now."""
        while self._heads and not self._starved:
            _, key = heappop(self._heads)
            queue = self._queues[key]
            event = queue.popleft()
            self._count -= 1
            if queue:
                heappush(self._heads, (queue[0].recorded_ms, key))
            else:
                self._starved += key in self._waiting
            yield event
