"""Sorted runs: rows that no longer change, an index in the order of their hashes, and a Bloom filter.

Files of run N: `N.rows`, frames of rows as in the write-ahead log (it was one, or a merge wrote it);
`N.index`; and `N.V.alive`, version V of the bits that say which rows are still there (none: all that
the index names). All are memory-mapped, so what is in use lies in the page cache and nowhere else.

Index: header of eight words, then `starts` (uint32 per bucket of hashes, and the end), `order` (uint32: the
rows by hash), the filter. A bucket holds two rows in the middle.
"""

from __future__ import annotations

import mmap
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams.store import bloom, files, wal
from streams.store.bits import Bits, clear_bit, is_set, room_for, set_bits
from streams.store.errors import StoreCorrupt
from streams.store.hashing import key_hash
from streams.store.hits import KEY_WORDS, Integer, Keys, Mask, Places, Words

_MAGIC = 0x696E6478
_HEADER_WORDS = 8
_HALF = np.uint64(32)
ROW_BITS = 32
"""A place on disk: number of the run above these bits, row below."""
ROW_MASK = (1 << ROW_BITS) - 1

Starts = NDArray[np.uint32]
Order = NDArray[np.uint32]


@dataclass
class Run:
    """One open run."""

    number: int
    rows: Words
    starts: Starts
    order: Order
    filter: bloom.Bloom
    alive: Bits
    count: int
    """Rows alive."""
    first_time: int
    last_time: int
    version: int = 0
    """Of the bits on disk."""
    changed: bool = False
    """The bits here are newer."""

    def kill(self, rows: NDArray[np.uint32]) -> None:
        """These rows are no longer there (some may have gone before)."""
        gone = int(_clear(self.alive, rows))
        self.count -= gone
        self.changed |= gone > 0

    def look_up(self, keys: Keys, wanted: Mask, places: Places, values: Words) -> int:
        """Find the keys that are still `wanted`; fills both arrays and strikes out what was found."""
        found: int = _look_up(
            *(self.rows, self.starts, self.order, self.filter, self.alive),
            *(self.number << ROW_BITS, keys, wanted, places, values),
        )
        return found

    def expire(self, word: int, before: int) -> int:
        """Kill the rows whose time in `word` is less than `before`; returns how many."""
        if self.first_time >= before:
            return 0
        gone = int(_expire(self.rows, self.alive, word, before))
        self.count -= gone
        self.changed |= gone > 0
        self.first_time = before
        return gone

    def write_alive(self, folder: Path) -> int:
        """Put the bits on disk as a new version; returns the bytes."""
        self.version += 1
        self.changed = False
        head = np.array([len(self.rows), zlib.crc32(self.alive.data)], np.uint64)
        return files.write_file(alive_path(folder, self.number, self.version), head, self.alive)


def rows_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.rows"


def index_path(folder: Path, number: int) -> Path:
    return folder / f"{number:08}.index"


def alive_path(folder: Path, number: int, version: int) -> Path:
    return folder / f"{number:08}.{version}.alive"


def write_index(folder: Path, number: int, rows: Words, alive: Bits, count: int, word: int) -> int:
    """Index the `count` rows alive of the file of `rows`; `word` holds their time. Returns the bytes.

    The file is mapped while it is built: no second copy of it lies in memory.
    """
    buckets, blocks = count // 2 + 1, bloom.blocks_for(count)
    size = _layout(buckets, count, blocks)[-1]
    with index_path(folder, number).open("w+b") as file:
        file.truncate(size)
        mapped = mmap.mmap(file.fileno(), size)
        raw = np.frombuffer(mapped, np.uint8)
        header, starts, order, filter_ = _parts(raw, buckets, count, blocks)
        _sort(rows, alive, starts, order, filter_)
        first, last = _time_range(rows, order, word)
        header[:5] = (_MAGIC, count, buckets, blocks, len(rows))
        header[5:7].view(np.int64)[:] = first, last
        header[7] = _checksum(raw)
        mapped.flush()
        files.sync(file.fileno())
    return size


def open_run(folder: Path, number: int, version: int, width: int, check: bool = True) -> Run:
    """Map the files of a run; raises StoreCorrupt. `check=False`: this process has just written them."""
    path = index_path(folder, number)
    raw = _map(path)
    header = raw[: _HEADER_WORDS * 8].view(np.uint64)
    if len(header) < _HEADER_WORDS or int(header[0]) != _MAGIC:
        raise StoreCorrupt(path, "this is no index")
    entries, buckets, blocks, slots = (int(word) for word in header[1:5])
    if len(raw) != _layout(buckets, entries, blocks)[-1]:
        raise StoreCorrupt(path, f"{len(raw)} bytes are not the size that its header says")
    if check and int(header[7]) != _checksum(raw):
        raise StoreCorrupt(path, "wrong checksum")
    _, starts, order, filter_ = _parts(raw, buckets, entries, blocks)
    rows = map_rows(rows_path(folder, number), width)
    if len(rows) != slots:
        raise StoreCorrupt(rows_path(folder, number), f"{len(rows)} rows instead of {slots}")
    if check:
        _check_rows(rows_path(folder, number), rows)
    alive = np.zeros(room_for(slots), np.uint8)
    if version:
        alive[:] = _open_alive(alive_path(folder, number, version), slots)
    else:
        set_bits(alive, order)
    first, last = (int(word) for word in header[5:7].view(np.int64))
    count = int(np.bitwise_count(alive).sum())
    return Run(number, rows, starts, order, filter_, alive, count, first, last, version)


def map_rows(path: Path, width: int) -> Words:
    """The rows of a file, shape (rows, width); raises StoreCorrupt."""
    raw = _map(path)
    if len(raw) % (width * 8):
        raise StoreCorrupt(path, f"{len(raw)} bytes are no whole rows of {width * 8}")
    rows: Words = raw.view(np.uint64).reshape(-1, width)
    return rows


def _check_rows(path: Path, rows: Words) -> None:
    end = 0
    for frame in wal.frames(rows):
        end = frame.end
    if end != len(rows):
        raise StoreCorrupt(path, f"wrong checksum in the frame at byte {end * rows.shape[1] * 8}")


def _open_alive(path: Path, slots: int) -> Bits:
    raw = _map(path)
    bits = raw[16:]
    head = [slots, zlib.crc32(bits.data)]
    if len(bits) != room_for(slots) or raw[:16].view(np.uint64).tolist() != head:
        raise StoreCorrupt(path, "wrong size or checksum")
    return bits


def _map(path: Path) -> NDArray[np.uint8]:
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise StoreCorrupt(path, f"cannot be read ({error})") from error
    return np.frombuffer(mapped, np.uint8)


def _checksum(index: NDArray[np.uint8]) -> int:
    """Of all but itself, the last word of the header."""
    end = _HEADER_WORDS * 8
    return zlib.crc32(index[end:].data, zlib.crc32(index[: end - 8].data))


def _layout(buckets: int, entries: int, blocks: int) -> tuple[int, int, int, int]:
    """Where starts, order and filter begin, and the size, in bytes; the filter begins a cache line."""
    starts = _HEADER_WORDS * 8
    order = starts + 4 * (buckets + 1)
    filter_ = -(-(order + 4 * entries) // 64) * 64
    return starts, order, filter_, filter_ + blocks * bloom.BLOCK_WORDS * 8


def _parts(raw: NDArray[np.uint8], buckets: int, entries: int, blocks: int) -> Any:
    """Header, starts, order and filter as arrays over the bytes of an index."""
    starts, order, filter_, end = _layout(buckets, entries, blocks)
    return (
        raw[:starts].view(np.uint64),
        raw[starts:order].view(np.uint32),
        raw[order : order + 4 * entries].view(np.uint32),
        raw[filter_:end].view(np.uint64),
    )


@compiled
def bucket_of(mixed: np.uint64, buckets: int) -> Integer:
    """Ascending in the hash."""
    return np.int64(((mixed >> _HALF) * np.uint64(buckets)) >> _HALF)


@compiled
def _sort(rows: Words, alive: Bits, starts: Starts, order: Order, filter_: bloom.Bloom) -> None:
    """Order the rows alive by hash: counted into buckets, then each bucket sorted by insertion."""
    buckets = len(starts) - 1
    for row in range(len(rows)):
        if is_set(alive, row):
            mixed = key_hash(rows[row, 0], rows[row, 1])
            bloom.add(filter_, mixed)
            starts[bucket_of(mixed, buckets) + 1] += np.uint32(1)
    for bucket in range(buckets):
        starts[bucket + 1] += starts[bucket]
    filled = np.zeros(buckets, np.uint32)
    for row in range(len(rows)):
        if is_set(alive, row):
            mixed = key_hash(rows[row, 0], rows[row, 1])
            mine = bucket_of(mixed, buckets)
            at = np.int64(starts[mine]) + np.int64(filled[mine])
            for _ in range(np.int64(filled[mine])):
                before = order[at - 1]
                if key_hash(rows[before, 0], rows[before, 1]) <= mixed:
                    break
                order[at] = before
                at -= np.int64(1)
            order[at] = np.uint32(row)
            filled[mine] += np.uint32(1)


@compiled
def _time_range(rows: Words, order: Order, word: int) -> tuple[Integer, Integer]:
    """The least and the largest time of the rows in `order`; (0, 0) if they have none."""
    if word < 0:
        return 0, 0
    first = last = np.int64(rows[order[0], word])
    for row in order:
        time = np.int64(rows[row, word])
        first, last = min(first, time), max(last, time)
    return first, last


@compiled
def _look_up(
    rows: Words,
    starts: Starts,
    order: Order,
    filter_: bloom.Bloom,
    alive: Bits,
    base: int,
    keys: Keys,
    wanted: Mask,
    places: Places,
    values: Words,
) -> int:
    found = 0
    for n in range(len(keys)):
        if not wanted[n]:
            continue
        high, low = keys[n, 0], keys[n, 1]
        mixed = key_hash(high, low)
        if not bloom.may_hold(filter_, mixed):
            continue
        bucket = bucket_of(mixed, len(starts) - 1)
        for at in range(np.int64(starts[bucket]), np.int64(starts[bucket + 1])):
            row = np.int64(order[at])
            if rows[row, 0] == high and rows[row, 1] == low:
                if is_set(alive, row):
                    for word in range(values.shape[1]):
                        values[n, word] = rows[row, KEY_WORDS + word]
                    places[n] = base + row
                    wanted[n] = False
                    found += 1
                break
    return found


@compiled
def _clear(alive: Bits, rows: NDArray[np.uint32]) -> int:
    gone = 0
    for row in rows:
        if is_set(alive, np.int64(row)):
            clear_bit(alive, np.int64(row))
            gone += 1
    return gone


@compiled
def _expire(rows: Words, alive: Bits, word: int, before: int) -> int:
    gone = 0
    for row in range(len(rows)):
        if is_set(alive, row) and np.int64(rows[row, word]) < before:
            clear_bit(alive, row)
            gone += 1
    return gone
