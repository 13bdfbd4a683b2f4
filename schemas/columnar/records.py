"""Raw records of one partition: where their payloads lie in memory, nothing decoded."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Records:
    """`n` records of one partition in offset order; arrays of shape (n,).

    The payloads belong to `owner` and stay valid as long as this object lives.
    """

    topic: str
    partition: int
    address: NDArray[np.int64]
    """Of each payload's first byte; 0 for a null payload."""
    length: NDArray[np.int64]
    """Bytes of each payload; 0 for a null payload."""
    offset: NDArray[np.int64]
    recorded: NDArray[np.int64]
    """Kafka timestamp, ms; 0 if there is none."""
    owner: object = None

    def __len__(self) -> int:
        return len(self.offset)

    def payload(self, index: int) -> bytes | None:
        """A copy of one payload."""
        address = int(self.address[index])
        return ctypes.string_at(address, int(self.length[index])) if address else None

    def between(self, begin: int, end: int) -> Records:
        """Those from index `begin` up to before `end`, over the same payloads."""
        return replace(
            self,
            address=self.address[begin:end],
            length=self.length[begin:end],
            offset=self.offset[begin:end],
            recorded=self.recorded[begin:end],
        )

    @classmethod
    def of(
        cls,
        topic: str,
        partition: int,
        payloads: Sequence[bytes | None],
        offset: Sequence[int] | NDArray[np.int64] | None = None,
        recorded: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> Records:
        """Records over a copy of `payloads`; offsets count from 0 unless given."""
        n = len(payloads)
        length = np.fromiter((len(p or b"") for p in payloads), np.int64, n)
        joined = np.frombuffer(b"".join(p or b"" for p in payloads) + b"\0", np.uint8)
        address = joined.ctypes.data + np.concatenate(([0], np.cumsum(length)))[:n].astype(np.int64)
        address[[p is None for p in payloads]] = 0
        return cls(
            topic,
            partition,
            address,
            length,
            np.arange(n, dtype=np.int64) if offset is None else np.asarray(offset, np.int64),
            np.zeros(n, np.int64) if recorded is None else np.asarray(recorded, np.int64),
            joined,
        )
