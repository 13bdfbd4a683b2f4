"""Folds and reactors: the two pure ideas that everything else drives.

A *fold* builds state from events. A *reactor* is a fold that also answers events with events.
Live services, replay and simulation run the very same classes; only the runner differs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from schemas.event import Event
from streams.canonical import fingerprint


class Fold(Protocol):
    """Pure: no clock, no randomness, no I/O; the state belongs to the runner, `apply` may change it in place.

    `apply` must not care in which order events of *different* partitions come: order is only kept
    within a partition (runners read partitions side by side, see `streams.merge`, so none runs days
    ahead of another). Repeats never reach it (see `Projector`).
    """

    @property
    def name(self) -> str: ...

    @property
    def topics(self) -> tuple[str, ...]: ...

    def initial(self) -> Any: ...

    def apply(self, state: Any, batch: Sequence[Event]) -> Any: ...


@runtime_checkable
class Reactor(Fold, Protocol):
    """`react` is asked after each event was applied; the ids of its answers are derived from their cause."""

    def react(self, state: Any, event: Event) -> list[Event]: ...


@dataclass(slots=True)
class Seen:
    """Recent event ids of one topic: a repeat with a new offset is recognised and dropped.

    Two generations of at most `capacity` ids each bound the memory; a repeat further back than
    `capacity` events is not recognised (ClickHouse still merges it).
    """

    capacity: int = 500_000
    young: set[int] = field(default_factory=set)
    old: set[int] = field(default_factory=set)

    def add(self, event_id: str) -> bool:
        """True if the id is new."""
        key = id_hash(event_id)
        if key in self.young or key in self.old:
            return False
        if len(self.young) >= self.capacity:
            self.old, self.young = self.young, set()
        self.young.add(key)
        return True


def id_hash(event_id: str) -> int:
    """64 bits of an event id, the same in every process."""
    return int.from_bytes(hashlib.blake2b(event_id.encode(), digest_size=8).digest(), "big")


@dataclass
class Projector:
    """Folds plus what has been applied to them: offsets and ids. Feeding a record twice changes nothing."""

    folds: Sequence[Fold]
    offsets: dict[tuple[str, int], int] = field(default_factory=dict)
    events: int = 0
    states: dict[str, Any] = field(default_factory=dict)
    _seen: dict[str, Seen] = field(default_factory=dict)
    _readers: dict[str, list[tuple[Fold, Reactor | None]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for fold in self.folds:
            self.states.setdefault(fold.name, fold.initial())
            reactor = fold if isinstance(fold, Reactor) else None
            for topic in fold.topics:
                self._readers.setdefault(topic, []).append((fold, reactor))

    @property
    def topics(self) -> tuple[str, ...]:
        return tuple(sorted({topic for fold in self.folds for topic in fold.topics}))

    def fresh(self, event: Event) -> bool:
        """Note the event's position and id; False if it had been applied before."""
        if event.at is not None:
            key = event.at.topic, event.at.partition
            if event.at.offset < self.offsets.get(key, 0):
                return False
            self.offsets[key] = event.at.offset + 1
        seen = self._seen.get(event.topic)
        if seen is None:
            seen = self._seen[event.topic] = Seen()
        if not seen.add(event.id):
            return False
        self.events += 1
        return True

    def skip_to(self, topic: str, partition: int, offset: int) -> None:
        """Note that everything before `offset` is done with (dead letters, transaction markers)."""
        key = topic, partition
        self.offsets[key] = max(offset, self.offsets.get(key, 0))

    def feed(self, batch: Iterable[Event]) -> None:
        """Apply without reacting: replay and recovery."""
        new = [event for event in batch if self.fresh(event)]
        for fold in self.folds:
            mine = [event for event in new if event.topic in fold.topics]
            if mine:
                self.states[fold.name] = fold.apply(self.states[fold.name], mine)

    def react(self, event: Event) -> list[Event]:
        """Apply one event and collect what the reactors answer."""
        if not self.fresh(event):
            return []
        answers: list[Event] = []
        for fold, reactor in self._readers.get(event.topic, ()):
            state = self.states[fold.name] = fold.apply(self.states[fold.name], (event,))
            if reactor:
                answers += reactor.react(state, event)
        return answers

    def fingerprint(self, name: str) -> str:
        """SHA-256 of the state of fold `name`, after its `settle`, if it has one.

        A fold that forgets by watermark does so now and then; `settle(state)` does it now, so that when
        it last did makes no difference.
        """
        for fold in self.folds:
            settle = getattr(fold, "settle", None)
            if fold.name == name and settle is not None:
                self.states[name] = settle(self.states[name])
        return fingerprint(self.states[name])
