"""Merging runs: several become one, without the rows that have gone.

The runs are read side by side in the order of their hashes, one range of hashes after the other, so that what
lies in memory does not grow with them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from infra.jit import compiled
from streams.store import files, wal
from streams.store.bits import Bits, is_set
from streams.store.hashing import key_hash
from streams.store.hits import Words
from streams.store.run import Order, Run, Starts, bucket_of, map_rows, rows_path, write_index

RANGE_ROWS = 1 << 15
"""Rows that are sorted at a time."""
_SPAN = 1 << 64


def tier(count: int, limit: int, fanout: int) -> int:
    """Of a run of `count` rows, if a memtable takes `limit`: `fanout` of one tier make one of the next."""
    found = 0
    while count * 2 >= limit * fanout:
        found, count = found + 1, count // fanout
    return found


def to_merge(runs: Sequence[Run], limit: int, fanout: int) -> list[Run]:
    """The oldest `fanout` runs of the lowest tier that has so many; none if there is no such tier."""
    tiers: dict[int, list[Run]] = {}
    for run in runs:
        tiers.setdefault(tier(run.count, limit, fanout), []).append(run)
    return next((tiers[n][:fanout] for n in sorted(tiers) if len(tiers[n]) >= fanout), [])


def write_merged(folder: Path, number: int, runs: Sequence[Run], word: int) -> int:
    """Write run `number` out of what is alive in `runs`; `word` holds a row's time. Returns the bytes."""
    width = runs[0].rows.shape[1]
    head = wal.header_rows(width)
    total = sum(run.count for run in runs)
    ranges = max(1, total // RANGE_ROWS)
    path = rows_path(folder, number)
    alive: list[np.ndarray] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        for n in range(ranges):
            first, last = n * _SPAN // ranges, (n + 1) * _SPAN // ranges - 1
            rows = _collect(runs, np.uint64(first), np.uint64(last), head)
            if len(rows) > head:
                wal.write_header(rows, 0, wal.Kind.PUT, len(rows) - head, 0, len(rows))
                files.append(descriptor, rows)
                alive.append(np.arange(len(rows)) >= head)
        files.sync(descriptor)
    finally:
        os.close(descriptor)
    bits = np.packbits(np.concatenate(alive), bitorder="little")
    rows = map_rows(path, width)
    return rows.nbytes + write_index(folder, number, rows, bits, total, word)


def _collect(runs: Sequence[Run], first: np.uint64, last: np.uint64, head: int) -> Words:
    """The rows alive whose hash is in [first, last], by hash, behind `head` rows of room."""
    counts = [_count(*_of(run), first, last) for run in runs]
    rows = np.empty((head + sum(counts), runs[0].rows.shape[1]), np.uint64)
    at = head
    for run, count in zip(runs, counts, strict=True):
        _gather(*_of(run), first, last, rows[at : at + count])
        at += count
    rows[head:] = rows[head:][np.argsort(_hashes(rows[head:]))]
    return rows


def _of(run: Run) -> tuple[Words, Starts, Order, Bits]:
    return run.rows, run.starts, run.order, run.alive


@compiled
def _count(
    rows: Words, starts: Starts, order: Order, alive: Bits, first: np.uint64, last: np.uint64
) -> int:
    buckets = len(starts) - 1
    count = 0
    begin, end = starts[bucket_of(first, buckets)], starts[bucket_of(last, buckets) + 1]
    for at in range(np.int64(begin), np.int64(end)):
        row = np.int64(order[at])
        if is_set(alive, row) and first <= key_hash(rows[row, 0], rows[row, 1]) <= last:
            count += 1
    return count


@compiled
def _gather(
    rows: Words,
    starts: Starts,
    order: Order,
    alive: Bits,
    first: np.uint64,
    last: np.uint64,
    found: Words,
) -> None:
    buckets = len(starts) - 1
    count = 0
    begin, end = starts[bucket_of(first, buckets)], starts[bucket_of(last, buckets) + 1]
    for at in range(np.int64(begin), np.int64(end)):
        row = np.int64(order[at])
        if is_set(alive, row) and first <= key_hash(rows[row, 0], rows[row, 1]) <= last:
            for word in range(rows.shape[1]):
                found[count, word] = rows[row, word]
            count += 1


@compiled
def _hashes(rows: Words) -> np.ndarray:
    mixed = np.empty(len(rows), np.uint64)
    for row in range(len(rows)):
        mixed[row] = key_hash(rows[row, 0], rows[row, 1])
    return mixed
