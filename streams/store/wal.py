"""Frames of the write-ahead log: what they look like in a file of rows, and how they are read back.

A log is a file of rows of equal width. A frame is a header (as many rows as it takes) and its payload: rows
that were put, places that were taken out, a time before which everything was. A commit ends what belongs
together; on opening, everything behind the last commit is cut off. A log that is full becomes the data of
a sorted run as it is, so that a row is written once.

Header, in 64-bit words: magic and kind; rows of payload and count; number of the commit; CRC-32 of these
and the payload.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from streams.store.hits import Words

_MAGIC = 0x6C6F6731
HEADER_WORDS = 4


class Kind(IntEnum):
    PUT = 1
    REMOVE = 2
    EXPIRE = 3
    COMMIT = 4


class Frame(NamedTuple):
    kind: Kind
    size: int
    """Rows put, or places taken out."""
    sequence: int
    """Number of the commit that this belongs to."""
    payload: int
    """First row of the payload."""
    end: int
    """First row behind it."""


def header_rows(width: int) -> int:
    """Rows of a header where a row has `width` words."""
    return -(-HEADER_WORDS // width)


def payload_rows(words: int, width: int) -> int:
    """Rows that hold `words` words."""
    return -(-words // width)


def write_header(rows: Words, at: int, kind: Kind, count: int, sequence: int, end: int) -> None:
    """Put a header at row `at`, before a payload that is there already and ends before row `end`."""
    payload = at + header_rows(rows.shape[1])
    header = rows[at:payload].reshape(-1)
    header[:] = 0
    header[0] = _MAGIC << 32 | kind
    header[1] = (end - payload) << 32 | count
    header[2] = sequence
    header[3] = _checksum(rows, at, payload, end)


def frames(rows: Words, start: int = 0) -> Iterator[Frame]:
    """The frames from row `start` on, up to the first that is not whole."""
    at = start
    while (frame := _frame(rows, at)) is not None:
        yield frame
        at = frame.end


def commits_behind(rows: Words, at: int, sequence: int) -> bool:
    """Is there a whole commit later than `sequence` behind row `at`?

    A log that was cut short by a crash has none behind its first broken frame; a damaged one may.
    """
    marks = np.flatnonzero(rows[at:, 0] == np.uint64(_MAGIC << 32 | Kind.COMMIT)) + at
    found = (_frame(rows, int(mark)) for mark in marks)
    return any(frame is not None and frame.sequence > sequence for frame in found)


def _frame(rows: Words, at: int) -> Frame | None:
    payload = at + header_rows(rows.shape[1])
    if payload > len(rows):
        return None
    magic, extent, sequence, checksum = map(int, rows[at:payload].reshape(-1)[:HEADER_WORDS])
    end = payload + (extent >> 32)
    kind = magic & 0xFFFFFFFF
    if magic >> 32 != _MAGIC or kind not in tuple(Kind) or end > len(rows):
        return None
    if checksum != _checksum(rows, at, payload, end):
        return None
    return Frame(Kind(kind), extent & 0xFFFFFFFF, sequence, payload, end)


def _checksum(rows: Words, at: int, payload: int, end: int) -> int:
    head = zlib.crc32(rows[at:payload].reshape(-1)[: HEADER_WORDS - 1].data)
    return zlib.crc32(rows[payload:end].data, head) if end > payload else head
