"""Slices: parts of one partition that are folded apart and state together what the whole would.

What the window fold knows at an offset depends on little of what came before: the stream time; the records
of the windows that are not forgotten yet; and the ids of two generations of repeats. So a slice reads from
a little before the offset from which it speaks, beginning with the stream time of that place. Stream time
is a running maximum: the greatest event times of short blocks, found in parallel, give it everywhere.

Why no record is missed: a window that can still be stated at offset `a`, where stream time is S, starts at
or after S - max(kept, width + grace), for older ones are forgotten or closed by then. Its records have
event times from there on, and reading begins at the first block that has any such time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from streams.repeats import Repeats
from streams.task import Task
from streams.windows import KEPT_WINDOWS, Mark

START = Mark(0, -1, 0)
BLOCK = 1 << 14
"""Offsets of a block: what the scan keeps one event time of, and where slices may be cut."""


@dataclass(frozen=True, slots=True)
class Extent:
    """What there is of one partition: offsets `first` to `end` (exclusive)."""

    partition: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Read offsets `begin` to `end` (exclusive), and speak from `stated` on, with the state at `mark`."""

    partition: int
    begin: int
    mark: Mark
    stated: int
    end: int


def whole(extent: Extent) -> Slice:
    """The partition in one piece."""
    return Slice(extent.partition, extent.first, START, 0, extent.end)


def even(extent: Extent, parts: int, block: int = BLOCK) -> list[Slice]:
    """About equal pieces for the scan, cut at blocks; each begins early enough to know repeats."""
    return [
        Slice(extent.partition, _warm(extent, begin), START, begin, end)
        for begin, end in _pieces(extent, parts, block)
    ]


def cut(
    task: Task, extent: Extent, greatest: Mapping[int, int], parts: int, block: int = BLOCK
) -> list[Slice]:
    """At most `parts` slices; `greatest`: the greatest event time of each block that has events.

    Blocks are numbered offset // `block`; repeats have no part in `greatest`.
    """
    blocks = sorted(greatest)
    reached = [-1, *accumulate((greatest[number] for number in blocks), max)]
    slices = []
    for begin, end in _pieces(extent, parts, block):
        before = sum(number * block < begin for number in blocks)
        needed = _oldest(task, reached[before])
        at = next((i for i in range(before) if greatest[blocks[i]] >= needed), before)
        offset = max(extent.first, blocks[at] * block) if at < before else begin
        mark = Mark(offset, reached[at], 0)
        slices.append(Slice(extent.partition, _warm(extent, mark.offset), mark, begin, end))
    return slices


def overlap(extents: Sequence[Extent], slices: Sequence[Slice]) -> float:
    """How many times the log is read: 1.0 when nothing is read twice."""
    total = sum(extent.end - extent.first for extent in extents)
    return sum(part.end - part.begin for part in slices) / total if total else 1.0


def _pieces(extent: Extent, parts: int, block: int) -> list[tuple[int, int]]:
    """Ranges of whole blocks (the first and the last may be shorter), none of them empty."""
    size = max(1, -(-(extent.end - extent.first) // max(1, parts)))
    size = -(-size // block) * block
    start = extent.first // block * block
    inner = range(start + size, extent.end, size)
    bounds = [extent.first, *inner, extent.end]
    return [(begin, end) for begin, end in pairwise(bounds) if begin < end]


def _warm(extent: Extent, offset: int) -> int:
    """Where to begin to read so that repeats are known from `offset` on."""
    return max(extent.first, Repeats().warm_from(offset))


def _oldest(task: Task, stream_time: int) -> int:
    """Event times before this are of windows about which nothing more will be said."""
    width = task.window_ms
    return stream_time - max(KEPT_WINDOWS * width, width + task.grace_ms) - width
