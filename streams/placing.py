"""Rows to windows: one pass over event times, with stream time and lateness as of each row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Longs = NDArray[np.int64]

VERSIONS = 64
"""Versions whose latest slot is found without a search."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the n rows of a batch belong; `s` slots, each a (version, window start) that has rows."""

    order: Longs
    """(m,) The rows of all slots, one slot after the other; those that are too late are left out."""
    ends: Longs
    """(s,) Where each slot's rows end there."""
    before: Longs
    """(n,) Stream time before each row (never falls)."""
    version: Longs
    """(s,) Dictionary code."""
    start: Longs
    """(s,) Window start, ms."""
    rows: Longs
    """(s,) Rows in the slot."""
    late: Longs
    """(s,) Rows that came when their window had closed."""
    first: Longs
    """(s,) First row."""
    last_late: Longs
    """(s,) Last late row; -1 if there is none."""
    too_late_before: Longs
    """(s,) Rows of the batch that were too late, up to the slot's first row."""
    stream_time: int
    """After the last row."""
    too_late: int
    """Rows of the batch whose window had been forgotten."""

    def rows_of(self, slot: int) -> Longs:
        """In the order of the batch."""
        end = int(self.ends[slot])
        return self.order[end - int(self.rows[slot]) : end]


def place(
    time: Longs, version: NDArray[np.int32], stream_time: int, width: int, grace: int, kept: int
) -> Placed:
    """Tumbling windows of `width` ms: closed `grace` after their end, forgotten `kept` after their start.

    `stream_time` is the largest event time so far (-1: none).
    """
    before = np.empty(len(time), np.int64)
    order, ends, table, stream_time, too_late = _place(
        time, version, stream_time, width, grace, kept, before
    )
    version_, start, rows, late, first, last_late, lost = table
    return Placed(
        order, ends, before, version_, start, rows, late, first, last_late, lost,
        stream_time, too_late,
    )  # fmt: skip


@compiled
def _place(
    time: Any,
    version: Any,
    stream_time: int,
    width: int,
    grace: int,
    kept: int,
    before: Any,
) -> Any:
    slot = np.empty(len(time), np.int32)  # of each row; -1: too late
    table = np.empty((7, 64), np.int64)
    heads = np.full(256, -1, np.int32)
    latest = np.full(VERSIONS, -1, np.int32)  # versions alternate, and each stays in its window
    slots = 0
    too_late = 0
    for row in range(len(time)):
        now = time[row]
        before[row] = stream_time
        code = np.int64(version[row])
        at = latest[code & (VERSIONS - 1)]
        if at < 0 or code != table[0, at] or now < table[1, at] or now >= table[1, at] + width:
            start = now // width * width
            if slots * 2 >= len(heads):
                heads = np.full(4 * len(heads), -1, np.int32)
                for known in range(slots):
                    heads[_free(heads, table, table[0, known], table[1, known], width)] = known
            if slots == table.shape[1]:
                wider = np.empty((7, 2 * slots), np.int64)
                wider[:, :slots] = table
                table = wider
            head = _free(heads, table, code, start, width)
            at = heads[head]
            if at < 0 and start >= stream_time - kept:
                at = slots
                slots += 1
                heads[head] = at
                table[0, at] = code
                table[1, at] = start
                table[2, at] = 0
                table[3, at] = 0
                table[4, at] = row
                table[5, at] = -1
                table[6, at] = too_late
            latest[code & (VERSIONS - 1)] = at
        if at < 0 or table[1, at] < stream_time - kept:
            slot[row] = -1
            too_late += 1
        else:
            slot[row] = at
            table[2, at] += 1
            if table[1, at] + width + grace <= stream_time:
                table[3, at] += 1
                table[5, at] = row
        stream_time = max(stream_time, now)
    ends = np.zeros(slots, np.int64)
    for at in range(1, slots):
        ends[at] = ends[at - 1] + table[2, at - 1]
    order = np.empty(len(time) - too_late, np.int64)
    for row in range(len(time)):
        at = slot[row]
        if at >= 0:
            order[ends[at]] = row
            ends[at] += 1
    return order, ends, table[:, :slots], stream_time, too_late


@compiled
def _free(heads: Any, table: Any, code: Any, start: Any, width: int) -> Any:
    """The place of (code, start) in the open-addressing table `heads`: its slot's, or an empty one."""
    mask = len(heads) - 1
    place = (start // width * 31 + code * 2_654_435_761) & mask
    while heads[place] >= 0:
        slot = heads[place]
        if table[0, slot] == code and table[1, slot] == start:
            break
        place = (place + 1) & mask
    return place
