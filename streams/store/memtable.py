"""The memtable: rows in the order they came, and an open-addressing table that finds them by key.

The rows lie in memory exactly as they lie in the write-ahead log: a batch is written with one call, and
places count rows from the start of that file.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams.store.bits import Bits, clear_bit, is_set, places_of, room_for, set_bit
from streams.store.hashing import key_hash
from streams.store.hits import KEY_WORDS, NOWHERE, Keys, Mask, Places, Words

Entries = NDArray[np.uint64]
"""Per place of the table: upper half of the hash, then row + 1; 0 is free."""
_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_ONE = np.uint64(1)
_GONE = np.uint64(1 << 32)
"""An entry without row: it was taken out, a search goes on behind it."""
SMALLEST = 1 << 6


class Memtable:
    """Room for `capacity` rows of `width` words; it grows if it must."""

    def __init__(self, width: int, capacity: int) -> None:
        self._capacity = max(SMALLEST, capacity)
        self.rows: Words = np.empty((self._capacity, width), np.uint64)
        self.clear()

    def clear(self) -> None:
        self.used = 0
        self.count = 0
        """Rows alive; `used` also counts those that have gone, and rows of the log that hold no value."""
        if len(self.rows) > self._capacity:
            self.rows = np.empty((self._capacity, self.rows.shape[1]), np.uint64)
        self.alive: Bits = np.zeros(room_for(len(self.rows)), np.uint8)
        self._entries: Entries = np.zeros(SMALLEST * 2, np.uint64)

    @property
    def capacity(self) -> int:
        return len(self.rows)

    def reserve(self, count: int) -> int:
        """Room for `count` more rows, written by the caller; returns the place of the first."""
        first, self.used = self.used, self.used + count
        if self.used > len(self.rows):
            more = max(self.used, 2 * len(self.rows))
            rows = np.empty((more, self.rows.shape[1]), np.uint64)
            rows[:first] = self.rows[:first]
            self.rows = rows
            self.alive = np.concatenate(
                (self.alive, np.zeros(room_for(more) - len(self.alive), np.uint8))
            )
        return first

    def insert(self, first: int, count: int) -> Mask:
        """Index the rows [first, first + count); True for each key that had no row here before."""
        if 2 * self.used >= len(self._entries):
            self._rebuild(first)
        fresh = np.empty(count, np.bool_)
        self.count += _insert(self.rows, first, count, self._entries, self.alive, fresh)
        return fresh

    def find(self, keys: Keys) -> Places:
        places = np.empty(len(keys), np.int64)
        _find(self.rows, self._entries, keys, places)
        return places

    def remove(self, places: Places) -> int:
        """Take out the rows at `places`, each at most once; returns how many were there."""
        gone = int(_remove(self.rows, self._entries, self.alive, places))
        self.count -= gone
        return gone

    def places(self, first: int = 0, last: int | None = None) -> Places:
        """Of the rows alive, ascending."""
        found: Places = places_of(self.alive, first, self.used if last is None else last)
        return found

    def compact(self) -> None:
        """Close the gaps; places change."""
        alive = self.places()
        self.rows[: len(alive)] = self.rows[alive]
        self.alive.fill(0)
        self.used = self.count = 0
        self._entries.fill(0)
        self.reserve(len(alive))
        self.insert(0, len(alive))

    def _rebuild(self, first: int) -> None:
        """Twice as many places as rows at least: a search ends soon, at a place that is free."""
        self._entries = np.zeros(2 << self.used.bit_length(), np.uint64)
        _index(self.rows, first, self._entries, self.alive)


@compiled
def _insert(rows: Words, first: int, count: int, entries: Entries, alive: Bits, fresh: Mask) -> int:
    mask = np.uint64(len(entries) - 1)
    more = 0
    for n in range(count):
        row = first + n
        mixed = key_hash(rows[row, 0], rows[row, 1])
        tag = mixed >> _HALF
        at = mixed & mask
        free = old = np.int64(NOWHERE)
        while entries[at] != 0:
            entry = entries[at]
            if entry == _GONE:
                if free == NOWHERE:
                    free = np.int64(at)
            elif entry >> _HALF == tag:
                other = np.int64((entry & _LOW) - _ONE)
                if rows[other, 0] == rows[row, 0] and rows[other, 1] == rows[row, 1]:
                    old = other
                    break
            at = (at + _ONE) & mask
        if old != NOWHERE:
            clear_bit(alive, old)
        else:
            more += 1
            if free != NOWHERE:
                at = np.uint64(free)
        fresh[n] = old == NOWHERE
        entries[at] = (tag << _HALF) | np.uint64(row + 1)
        set_bit(alive, row)
    return more


@compiled
def _find(rows: Words, entries: Entries, keys: Keys, places: Places) -> None:
    mask = np.uint64(len(entries) - 1)
    for n in range(len(keys)):
        high, low = keys[n, 0], keys[n, 1]
        mixed = key_hash(high, low)
        tag = mixed >> _HALF
        at = mixed & mask
        places[n] = NOWHERE
        while entries[at] != 0:
            entry = entries[at]
            if entry >> _HALF == tag and entry != _GONE:
                row = np.int64((entry & _LOW) - _ONE)
                if rows[row, 0] == high and rows[row, 1] == low:
                    places[n] = row
                    break
            at = (at + _ONE) & mask


@compiled
def _remove(rows: Words, entries: Entries, alive: Bits, places: Places) -> int:
    mask = np.uint64(len(entries) - 1)
    gone = 0
    for row in places:
        if row < 0 or not is_set(alive, row):
            continue
        mixed = key_hash(rows[row, 0], rows[row, 1])
        entry = (mixed >> _HALF << _HALF) | np.uint64(row + 1)
        at = mixed & mask
        while entries[at] != entry:
            at = (at + _ONE) & mask
        entries[at] = _GONE
        clear_bit(alive, row)
        gone += 1
    return gone


@compiled
def _index(rows: Words, used: int, entries: Entries, alive: Bits) -> None:
    mask = np.uint64(len(entries) - 1)
    for row in range(used):
        if is_set(alive, row):
            mixed = key_hash(rows[row, 0], rows[row, 1])
            at = mixed & mask
            while entries[at] != 0:
                at = (at + _ONE) & mask
            entries[at] = (mixed >> _HALF << _HALF) | np.uint64(row + 1)


@compiled
def older(rows: Words, places: Places, word: int, before: int) -> Places:
    """Those of `places` whose time (an int64 in `word`) is less than `before`."""
    kept = np.empty(len(places), np.int64)
    count = 0
    for place in places:
        if np.int64(rows[place, word]) < before:
            kept[count] = place
            count += 1
    return kept[:count]


def values_at(rows: Words, places: Places) -> Words:
    """The values of the rows at `places`; zeros where that is NOWHERE."""
    values = np.zeros((len(places), rows.shape[1] - KEY_WORDS), np.uint64)
    _copy(rows, places, values)
    return values


@compiled
def _copy(rows: Words, places: Places, values: Words) -> None:
    for n in range(len(places)):
        if places[n] >= 0:
            for word in range(values.shape[1]):
                values[n, word] = rows[places[n], KEY_WORDS + word]
