"""The ledger: how many distinct events each topic holds, and a sum over their ids.

Two stores hold the same events if and only if count and sum agree (up to a chance of 2^-64); the sum does
not depend on order. The history is checked against the log with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.event import Event
from streams.fold import id_hash

MASK = (1 << 64) - 1


@dataclass
class LedgerState:
    topics: dict[str, list[int]] = field(default_factory=dict)
    """topic -> [distinct events, sum of id hashes modulo 2^64]"""


class Ledger:
    """Fold over any topics."""

    def __init__(self, topics: Sequence[str]) -> None:
        self.name = "ledger"
        self.topics = tuple(topics)

    def initial(self) -> LedgerState:
        return LedgerState()

    def apply(self, state: LedgerState, batch: Sequence[Event]) -> LedgerState:
        for event in batch:
            entry = state.topics.setdefault(event.topic, [0, 0])
            entry[0] += 1
            entry[1] = (entry[1] + id_hash(event.id)) & MASK
        return state

    def merge(self, states: Sequence[LedgerState]) -> LedgerState:
        """The ledger of all partitions from theirs: counts and sums add up."""
        merged = self.initial()
        for state in states:
            for topic, (count, total) in state.topics.items():
                entry = merged.topics.setdefault(topic, [0, 0])
                entry[0] += count
                entry[1] = (entry[1] + total) & MASK
        return merged
