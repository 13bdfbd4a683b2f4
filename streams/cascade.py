"""Reactors over a history: what would have been said, without saying it.

The live runners append what a reactor answers, and read it again; here the answers go on to those who read
their topics at once. With the same reactors and the same history the answers are the same bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence

from schemas.event import Event
from streams.fold import Fold, Projector


class Cascade:
    """Drives reactors side by side; logged events of the topics in `instead` give way to their answers."""

    def __init__(self, reactors: Sequence[Fold], instead: Collection[str] = ()) -> None:
        self._projector = Projector(reactors)
        self._instead = frozenset(instead)

    @property
    def topics(self) -> list[str]:
        """What it needs of the log."""
        return [topic for topic in self._projector.topics if topic not in self._instead]

    def feed(self, event: Event) -> list[Event]:
        """Everything that one logged event leads to, in the order in which it would be appended."""
        answers: list[Event] = []
        waiting = deque([event])
        while waiting:
            more = self._projector.react(waiting.popleft())
            answers += more
            waiting += [each for each in more if each.topic in self._instead]
        return answers


def answers(
    history: Iterable[Event], reactors: Sequence[Fold], instead: Collection[str] = ()
) -> Iterator[tuple[Event, Event]]:
    """(the logged event that led to it, answer), in order; see Cascade. `history` as it is replayed."""
    cascade = Cascade(reactors, instead)
    for event in history:
        if event.topic not in cascade.topics:
            continue
        for answer in cascade.feed(event):
            yield event, answer
