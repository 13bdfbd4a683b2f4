"""The nearest of many vectors by cosine: exact, reproducible, as of any moment.

`VectorFold` builds the state from events (whatever they are: the caller says which vectors an event adds or
takes away); a `Retriever` is that state at one moment, ready to be searched by `kernels.topk`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kernels.calls.retrieval import CosineIndex, topk
from schemas.event import Event
from streams.canonical import transient

Matrix = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Hit:
    """A vector that was found: its key, the time (ms) that it is from, its cosine to the query, -1 .. 1."""

    key: str
    time: int
    cosine: float


class Retriever:
    """Keys, their times and vectors at one moment. Equal cosines: the older first, then by key."""

    def __init__(self, keys: Sequence[str], times: Sequence[int], vectors: Matrix) -> None:
        """vectors: (n, d), d > 0, finite; raises ValueError if they are not, or the lengths differ."""
        if not len(keys) == len(times) == len(vectors):
            raise ValueError(f"{len(keys)} keys, {len(times)} times, {len(vectors)} vectors")
        order = sorted(range(len(keys)), key=lambda i: (times[i], keys[i]))
        self._keys = [keys[i] for i in order]
        self._times = [int(times[i]) for i in order]
        sorted_already = order == list(range(len(order)))
        self._index = CosineIndex(vectors if sorted_already else vectors[order])

    def __len__(self) -> int:
        return len(self._keys)

    def nearest(
        self, vector: Sequence[float] | Matrix, k: int, without: Collection[str] = ()
    ) -> list[Hit]:
        """The k nearest to `vector` (d,), nearest first, of keys that are not in `without`.

        Raises ValueError for another length, a vector that is not finite, or k < 1.
        """
        if not self._keys:
            return []
        found = topk(np.asarray(vector, np.float32), self._index, k + len(without))
        hits = (
            Hit(self._keys[row], self._times[row], cosine)
            for row, cosine in zip(found.rows[0].tolist(), found.cosines[0].tolist(), strict=True)
        )
        return [hit for hit in hits if hit.key not in without][:k]


@dataclass(frozen=True, slots=True)
class Item:
    """A key has this vector from `time` (ms) on; None: it has none any more."""

    key: str
    time: int
    vector: tuple[float, ...] | None


@dataclass(slots=True)
class Vectors:
    """Every version of every key's vector, by time: what a `Retriever` of any moment is made of."""

    versions: dict[str, list[Item]] = field(default_factory=dict)
    _latest: Retriever | None = transient(default=None)

    def put(self, item: Item) -> None:
        """Note a version; of two with the same key and time the one that comes later counts."""
        mine = self.versions.setdefault(item.key, [])
        place = len(mine)
        while place > 0 and mine[place - 1].time > item.time:
            place -= 1
        if place > 0 and mine[place - 1].time == item.time:
            mine[place - 1] = item
        else:
            mine.insert(place, item)
        self._latest = None

    def as_of(self, time: int | None = None) -> Retriever:
        """What was there at `time` (ms): of each key the newest version by then; None: the newest of all."""
        if time is None and self._latest is not None:
            return self._latest
        current = []
        for versions in self.versions.values():
            known = [item for item in versions if time is None or item.time <= time]
            if known and known[-1].vector is not None:
                current.append(known[-1])
        width = len(current[0].vector or ()) if current else 1
        vectors = np.array([item.vector for item in current], np.float32).reshape(-1, width)
        made = Retriever([i.key for i in current], [i.time for i in current], vectors)
        if time is None:
            self._latest = made
        return made


@dataclass(frozen=True)
class VectorFold:
    """A `streams.fold.Fold` whose state is `Vectors`; `items`: what an event adds or takes away, pure."""

    name: str
    topics: tuple[str, ...]
    items: Callable[[Event], Iterable[Item]]

    def initial(self) -> Vectors:
        return Vectors()

    def apply(self, state: Vectors, batch: Sequence[Event]) -> Vectors:
        """Put every item of the batch; keys of different partitions may come in any order."""
        for event in batch:
            for item in self.items(event):
                state.put(item)
        return state
