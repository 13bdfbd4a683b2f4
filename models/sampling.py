"""Samples of rows and of streams (pure): by hashes of ids, so order, repeats and batches do not matter.

Each row has a number in (0, 1) that follows from the seed and its id alone. A reservoir of k is the k rows
with the least numbers (bottom-k sampling: Cohen and Kaplan, Summarizing Data using Bottom-k Sketches, PODC
2007): two parts of a stream merge into the reservoir of the whole, and a repeated event changes nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset
from streams.fold import id_hash
from streams.task import DAY_MS, Recipe

Chosen = NDArray[np.bool_]
"""Which of n rows are in the sample."""


def numbers(ids: Iterable[Any], seed: int) -> NDArray[np.float64]:
    """A uniform number in (0, 1) per id; another seed gives others."""
    return np.array([_number(str(id_), seed) for id_ in ids], np.float64)


def reservoir(ids: NDArray[np.object_], size: int, seed: int) -> Chosen:
    """`size` rows, each set of so many with the same chance; all rows if there are no more."""
    return _least(numbers(ids, seed), size)


def weighted(
    ids: NDArray[np.object_], weights: NDArray[np.float64], size: int, seed: int
) -> Chosen:
    """`size` rows, drawn one after the other with chances in proportion to their weights (each > 0).

    The rows with the least -ln(u) / weight: Efraimidis and Spirakis, Weighted random sampling with
    a reservoir, Information Processing Letters 97(5), 2006.
    """
    return _least(-np.log(numbers(ids, seed)) / weights, size)


def stratified(ids: NDArray[np.object_], strata: NDArray[np.int64], size: int, seed: int) -> Chosen:
    """`size` rows, of each stratum in proportion to its rows; a stratum's share is off by less than one row.

    What rounding leaves goes to the strata with the largest remainders, the lower stratum first.
    """
    if size >= len(ids):
        return np.ones(len(ids), np.bool_)
    groups, place, counts = np.unique(strata, return_inverse=True, return_counts=True)
    quota = size * counts / len(ids)
    wanted = np.floor(quota).astype(np.int64)
    rest = size - int(wanted.sum())
    wanted[np.argsort(-(quota - wanted), kind="stable")[:rest]] += 1
    keys = numbers(ids, seed)
    chosen = np.zeros(len(ids), np.bool_)
    for group in range(len(groups)):
        members = np.flatnonzero(place == group)
        chosen[members[_least(keys[members], int(wanted[group]))]] = True
    return chosen


def training_sample(rows: Dataset, recipe: Recipe, window_ms: int) -> Dataset:
    """At most `max_rows` of the rows, by the recipe's `sampling` and seed; all of them without such a limit.

    'reservoir': each row with the same chance. 'stratified': each label of each day in its proportion.
    'weighted': newer rows with a higher chance, half of it per `half_life_days`.
    """
    size = recipe.max_rows
    if size is None or len(rows) <= size:
        return rows
    if recipe.sampling == "stratified":
        strata = rows.times // window_ms * 2 + rows.labels
        return rows.where(stratified(rows.ids, strata, size, recipe.seed))
    if recipe.sampling == "weighted":
        ages = (rows.times.max() - rows.times) / DAY_MS
        weights = np.maximum(0.5 ** (ages / recipe.half_life_days), 1e-12)
        return rows.where(weighted(rows.ids, weights, size, recipe.seed))
    return rows.where(reservoir(rows.ids, size, recipe.seed))


@dataclass
class Reservoir:
    """A reservoir over a stream: `size` of the items offered so far, whatever their order, without repeats.

    `seed` comes from an event, as every seed does. Merging two is offering each what the other holds.
    """

    size: int
    seed: int
    _heap: list[tuple[float, str]] = field(default_factory=list)
    _items: dict[str, Any] = field(default_factory=dict)

    def offer(self, id_: str, item: Any) -> None:
        key = (-_number(id_, self.seed), id_)
        if id_ in self._items or (len(self._heap) >= self.size and key <= self._heap[0]):
            return
        self._items[id_] = item
        heapq.heappush(self._heap, key)
        if len(self._heap) > self.size:
            del self._items[heapq.heappop(self._heap)[1]]

    def merge(self, other: Reservoir) -> None:
        """The reservoir of both streams; raises ValueError for another size or seed."""
        if (other.size, other.seed) != (self.size, self.seed):
            raise ValueError("reservoirs of different sizes or seeds do not merge")
        for id_, item in other.items():
            self.offer(id_, item)

    def items(self) -> list[tuple[str, Any]]:
        """(id, item) of the sample, by id."""
        return sorted(self._items.items(), key=lambda pair: pair[0])


SAMPLINGS: dict[str, Callable[..., Chosen]] = {
    "reservoir": reservoir,
    "stratified": stratified,
    "weighted": weighted,
}


def _number(id_: str, seed: int) -> float:
    return (id_hash(f"{seed}|{id_}") + 0.5) / 2.0**64


def _least(keys: NDArray[np.float64], size: int) -> Chosen:
    """The `size` least keys; of equal ones the first rows'."""
    chosen = np.zeros(len(keys), np.bool_)
    chosen[np.argsort(keys, kind="stable")[:size]] = True
    return chosen
