"""Ids of predictions that their callers do not name: random, and those of one batch in one partition.

The key of a prediction is its id, and the key decides the partition. Random ids would spread each batch over
all partitions: a request to every leader, and to its followers, for a few records each. An id is random but
for its last two digits, which are chosen so that the key falls into the partition whose turn it is; turns
go round, and leave out partitions that are slow to acknowledge.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

Turn = Callable[[str, int], "tuple[int, int] | None"]
"""(topic, the last turn's partition) -> (the next partition, how many there are); None if that is unknown."""

_TAILS = tuple(f"{number:02x}".encode() for number in range(256))
_BULK = 256


def unknown(topic: str, last: int) -> tuple[int, int] | None:  # noqa: ARG001
    """A `Turn` without any partitions."""
    return None


@dataclass(slots=True)
class PlacedIds:
    """UUIDs (version 4) for the records of one topic."""

    topic: str
    turn: Turn = unknown
    _partition: int = -1
    _of: int = 1
    _random: bytes = b""
    _at: int = field(default=0)

    def next_batch(self) -> None:
        """The ids from here on share another partition."""
        found = self.turn(self.topic, self._partition)
        self._partition, self._of = found or (self._partition, 1)

    def __call__(self) -> str:
        if self._at >= len(self._random):
            self._random, self._at = os.urandom(16 * _BULK), 0
        raw = self._random[self._at : self._at + 16]
        self._at += 16
        digits = raw.hex()
        variant = "89ab"[raw[8] & 3]
        start = (
            f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:30]}"
        )
        if self._of > 1:
            so_far, first = zlib.crc32(start.encode()), raw[15]
            for number in range(256):
                tail = _TAILS[first ^ number]
                if zlib.crc32(tail, so_far) % self._of == self._partition:
                    return start + tail.decode()
        return start + digits[30:]
