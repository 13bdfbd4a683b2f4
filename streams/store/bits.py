"""Packed bits: which rows of a file are alive."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams.store.hits import Integer

Bits = NDArray[np.uint8]


def room_for(count: int) -> int:
    """Bytes of `count` bits."""
    return (count + 7) // 8


@compiled
def is_set(bits: Bits, at: Integer) -> bool:
    return bool((bits[at >> 3] >> (at & 7)) & 1)


@compiled
def set_bit(bits: Bits, at: Integer) -> None:
    bits[at >> 3] |= np.uint8(1 << (at & 7))


@compiled
def clear_bit(bits: Bits, at: Integer) -> None:
    bits[at >> 3] &= np.uint8(~(1 << (at & 7)) & 255)


@compiled
def set_bits(bits: Bits, rows: NDArray[np.uint32]) -> None:
    for row in rows:
        set_bit(bits, np.int64(row))


@compiled
def places_of(bits: Bits, first: int, last: int) -> NDArray[np.int64]:
    """The set bits in [first, last), ascending."""
    count = 0
    for at in range(first, last):
        count += 1 if is_set(bits, at) else 0
    found = np.empty(count, np.int64)
    count = 0
    for at in range(first, last):
        if is_set(bits, at):
            found[count] = at
            count += 1
    return found
