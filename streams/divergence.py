"""Where a live fold went wrong: between which of its stated hashes, and from which record on at the earliest.

A live state is known only where it was hashed. So the answer is a range: the last statement that a replay
confirms, the first that it does not, and the records between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from schemas.catalogue import STATE_HASHES
from schemas.event import Event
from streams.fold import Fold, Projector
from streams.log import Offsets
from streams.replay import BATCH, Reader, stated_offsets

EXAMINED = 200
"""Statements that are looked at in one pass; of more, every n-th first, then those between the two found."""


@dataclass(frozen=True, slots=True)
class Statement:
    """A StateHashed of one fold."""

    offsets: Offsets
    sha256: str

    @property
    def records(self) -> int:
        return sum(self.offsets.values())


@dataclass(frozen=True, slots=True)
class Divergence:
    """The tightest range that the statements allow: [begin, end) of each partition that was read in it.

    Everything before `begin` is confirmed. `first` is the first record of the range in the order of a
    replay; the wrong turn is at it or later, and before `end`.
    """

    fold: str
    begin: Offsets
    end: Offsets
    live: str
    replayed: str
    first: Event | None

    @property
    def records(self) -> int:
        return sum(end - self.begin.get(key, 0) for key, end in self.end.items())

    def __str__(self) -> str:
        ranges = ", ".join(
            f"{topic}[{partition}]@{self.begin.get((topic, partition), 0)}-{end - 1}"
            for (topic, partition), end in sorted(self.end.items())
        )
        first = f"; first record {self.first.at}, {self.first.type}" if self.first else ""
        return f"{self.fold} went wrong within {self.records:,} records: {ranges}{first}"


def statements(read: Reader, fold: str) -> list[Statement]:
    """What a fold stated about itself, each place once, by how much it had read."""
    found: dict[tuple[tuple[tuple[str, int], int], ...], Statement] = {}
    for event in read([STATE_HASHES]):
        if event.type == "StateHashed" and event.data["fold"] == fold:
            offsets = stated_offsets(event)
            # Of two statements about one place the later stands: the live fold may have been repaired.
            found[tuple(sorted(offsets.items()))] = Statement(offsets, event.data["sha256"])
    return sorted(found.values(), key=lambda statement: statement.records)


def diverged(
    read: Reader,
    fold: Fold,
    stated: Sequence[Statement],
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Divergence | None:
    """Where the replay of `fold` first contradicts what was `stated`; None if it nowhere does."""
    chain = _chain(stated)
    known = Statement({}, "")
    step = max(1, len(chain) // EXAMINED)
    while True:
        points = chain[step - 1 :: step]
        if chain and (not points or points[-1] is not chain[-1]):
            points = [*points, chain[-1]]
        found = _first_wrong(read, fold, known, points, on_step)
        if found is None:
            return None
        known, wrong, replayed = found
        if step == 1:
            break
        # Between the two there are `step` statements at most: each of them is looked at.
        chain = [s for s in chain if known.records < s.records <= wrong.records]
        step = max(1, len(chain) // EXAMINED)
    begin = {key: known.offsets.get(key, 0) for key in wrong.offsets}
    end = {key: offset for key, offset in wrong.offsets.items() if offset > begin[key]}
    first = next(iter(read(fold.topics, end, begin)), None) if end else None
    inside = {key: begin[key] for key in end}
    return Divergence(fold.name, inside, end, wrong.sha256, replayed, first)


def _chain(stated: Iterable[Statement]) -> list[Statement]:
    """Statements of which each contains the one before it (after a crash, a fold may take another way)."""
    chain: list[Statement] = []
    for statement in stated:
        before = chain[-1].offsets if chain else {}
        if all(statement.offsets.get(key, 0) >= offset for key, offset in before.items()):
            chain.append(statement)
    return chain


def _first_wrong(
    read: Reader,
    fold: Fold,
    known: Statement,
    points: Sequence[Statement],
    on_step: Callable[[int, int], None],
) -> tuple[Statement, Statement, str] | None:
    """(last right, first wrong, what the replay gives there), folding from one point to the next."""
    projector = Projector([fold])
    _advance(projector, read, {}, known.offsets)
    last = known
    for count, point in enumerate(points, 1):
        _advance(projector, read, last.offsets, point.offsets)
        replayed = projector.fingerprint(fold.name)
        on_step(count, len(points))
        if replayed != point.sha256:
            return last, point, replayed
        last = point
    return None


def _advance(projector: Projector, read: Reader, start: Offsets, to: Offsets) -> None:
    if start == to:
        return
    batch: list[Event] = []
    for event in read(projector.topics, to, start):
        batch.append(event)
        if len(batch) == BATCH:
            projector.feed(batch)
            batch.clear()
    projector.feed(batch)
