"""Repeats of one partition: event ids that were there before, recognised without an object per id.

Offsets are cut into generations of `span` records; an id is a repeat if it was seen in the same generation
or in the one before. What counts as a repeat thus follows from the log alone, wherever a reader began, if it
began at `warm_from` of where it needs an answer.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.memory import prefetch, signed
from streams.store.hashing import key_hash

SPAN = 1 << 17
"""Records a generation: between one and two of them is how far back a repeat is recognised."""

_SEVEN = np.uint64(7)
_AHEAD = 16
"""Rows by which a place in the tables is asked for before it is needed: they do not fit into the cache."""

Ids = NDArray[np.uint64]


class Repeats:
    """Two generations of 64-bit keys in open-addressing tables of twice as many places."""

    def __init__(self, span: int = SPAN) -> None:
        self._span = span
        self._size = 1 << (2 * span - 1).bit_length()
        self._generation = -1
        self._young = np.zeros(self._size, np.uint64)
        self._old = np.zeros(self._size, np.uint64)

    def warm_from(self, offset: int) -> int:
        """Where reading must begin so that the answer at `offset` is right."""
        return max(0, (offset // self._span - 1) * self._span)

    def first(self, ids: Ids, offset: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for each id, shape (n, 2), that is no repeat; call it in offset order."""
        fresh = np.empty(len(offset), np.bool_)
        begin = 0
        while begin < len(offset):
            generation = int(offset[begin]) // self._span
            end = int(np.searchsorted(offset, (generation + 1) * self._span))
            self._turn_to(generation)
            _mark(ids[begin:end], self._young, self._old, fresh[begin:end])
            begin = end
        return fresh

    def _turn_to(self, generation: int) -> None:
        if generation == self._generation:
            return
        if generation == self._generation + 1:
            self._old, self._young = self._young, self._old
        else:
            self._old.fill(0)
        self._young.fill(0)
        self._generation = generation


@compiled
def _mark(ids: Ids, young: Ids, old: Ids, fresh: NDArray[np.bool_]) -> None:
    mask, one, rows = np.uint64(len(young) - 1), np.uint64(1), len(ids)
    young_at, old_at = signed(np.uint64(young.ctypes.data)), signed(np.uint64(old.ctypes.data))
    keys = np.empty(rows, np.uint64)
    for row in range(rows):
        keys[row] = key_hash(ids[row, 0], ids[row, 1]) | one  # 0 marks an empty place
    for row in range(rows):
        if row + _AHEAD < rows:
            ahead = 8 * signed(keys[row + _AHEAD] >> _SEVEN & mask)
            prefetch(young_at + ahead)
            prefetch(old_at + ahead)
        key = keys[row]
        place = key >> _SEVEN & mask
        known = False
        at = place
        while old[at] != 0:
            if old[at] == key:
                known = True
                break
            at = at + one & mask
        # A repeat is noted, too: who begins to read at it has seen nothing before it.
        at = place
        while young[at] != 0 and young[at] != key:
            at = at + one & mask
        known = known or young[at] == key
        young[at] = key
        fresh[row] = not known
