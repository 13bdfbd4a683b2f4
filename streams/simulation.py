"""The simulation runner: an in-memory log, a virtual clock, and faults from a seed.

It drives the same folds and reactors as the live runners, so that thousands of histories with repeats,
reordering, late events and crashes before or after the commit can be tried in a minute without Kafka.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from schemas.event import Event, Position
from streams.fold import Fold, Projector, id_hash
from streams.merge import Merger

Partition = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances per step (0..1); `None` of them happens in the fault-free run."""

    repeat: float = 0.0
    """An event is appended twice (a producer's retry, a processor's second try)."""
    crash_before_append: float = 0.0
    crash_before_commit: float = 0.0
    max_poll: int = 1_000
    """Small polls interleave partitions and topics in ever other ways."""
    hold_back: int = 0
    """Input events may swap places with up to this many neighbours (late events)."""


class SimulatedLog:
    """Topics as lists per partition; the clock ticks once per append."""

    def __init__(self, partitions: Mapping[str, int], key: Callable[[Event], str]) -> None:
        self._counts = partitions
        self._key = key
        self.records: dict[Partition, list[Event]] = {}
        self.now_ms = 0

    def partitions(self, topic: str) -> list[Partition]:
        return [(topic, partition) for partition in range(self._counts.get(topic, 1))]

    def append(self, event: Event) -> None:
        self.now_ms += 1
        partition = id_hash(self._key(event)) % self._counts.get(event.topic, 1)
        records = self.records.setdefault((event.topic, partition), [])
        at = Position(event.topic, partition, len(records))
        records.append(replace(event, at=at, recorded_ms=self.now_ms))

    def ids(self, topic: str) -> set[str]:
        return {
            event.id
            for partition in self.partitions(topic)
            for event in self.records.get(partition, ())
        }


@dataclass
class Process:
    """One live runner: polls, reacts, appends, commits; it loses its memory in a crash."""

    log: SimulatedLog
    folds: Sequence[Fold]
    committed: dict[Partition, int] = field(default_factory=dict)
    crashes: int = 0

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        """As `streams.recovery.recover` does: fold what was committed, without reacting."""
        self.projector = Projector(self.folds)
        self.merger = Merger()
        self.read = dict(self.committed)
        replay = Merger()
        for key, offset in self.committed.items():
            for event in self.log.records.get(key, [])[:offset]:
                replay.push(event)
        self.projector.feed(replay.pop())

    def step(self, rng: random.Random, faults: Faults) -> bool:
        """One poll; False if there was nothing to do."""
        self._poll(rng, faults.max_poll)
        answers: list[Event] = []
        count = 0
        for event in self.merger.pop():
            answers += self.projector.react(event)
            count += 1
        if not count:
            return bool(len(self.merger))
        if rng.random() < faults.crash_before_append:
            return self._crash()
        for answer in answers:
            self.log.append(answer)
            if rng.random() < faults.repeat:
                self.log.append(answer)
        if rng.random() < faults.crash_before_commit:
            return self._crash()
        self.committed = dict(self.projector.offsets)
        return True

    def _crash(self) -> bool:
        self.crashes += 1
        self._start()
        return True

    def _poll(self, rng: random.Random, limit: int) -> None:
        partitions = [key for topic in self.projector.topics for key in self.log.partitions(topic)]
        rng.shuffle(partitions)
        for key in partitions:
            records = self.log.records.get(key, [])
            start = self.read.get(key, 0)
            found = records[start : start + limit]
            for event in found:
                self.merger.push(event)
            self.read[key] = start + len(found)
            if self.read[key] < len(records):
                self.merger.open(key)
            else:
                self.merger.close(key)


def run_history(
    inputs: Sequence[Event],
    log: SimulatedLog,
    processes: Sequence[Process],
    seed: int,
    faults: Faults,
) -> None:
    """Append `inputs` while the processes work on them, with faults; then let everything come to rest."""
    rng = random.Random(seed)  # noqa: S311 - a seeded history, no secret
    source = _held_back(inputs, rng, faults.hold_back)
    open_ = True
    while open_:
        for _ in range(rng.randint(1, 2 * faults.max_poll)):
            event = next(source, None)
            if event is None:
                open_ = False
                break
            log.append(event)
            if rng.random() < faults.repeat:
                log.append(event)
        for process in rng.sample(list(processes), len(processes)):
            process.step(rng, faults)
    calm = Faults()
    busy = True
    while busy:
        busy = False
        for process in processes:
            busy |= process.step(rng, calm)


def _held_back(inputs: Sequence[Event], rng: random.Random, reach: int) -> Iterator[Event]:
    """The inputs, each at most `reach` places later than it was."""
    order = sorted(range(len(inputs)), key=lambda index: index + rng.uniform(0, reach))
    return (inputs[index] for index in order)
