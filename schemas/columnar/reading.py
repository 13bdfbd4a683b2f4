"""Avro's parts at an address, each checked against the end of its payload before a byte is read.

A function takes the address where it stands and gives the address after what it read, or BAD.
"""

from __future__ import annotations

import numpy as np

from infra.jit import compiled
from schemas.columnar.memory import load_u8, signed

BAD = 0
_ONE, _SEVEN = np.uint64(1), np.uint64(7)


@compiled
def read_byte(at: int, end: int) -> tuple[int, int]:
    """(byte, address after it)."""
    if at >= end:
        return 1, BAD
    return load_u8(at), at + 1


@compiled
def skip(at: int, end: int, count: int) -> int:
    return at + count if count <= end - at else BAD


@compiled
def read_varint(at: int, end: int) -> tuple[int, int]:
    """(value, address after it) of a zigzag varint; BAD beyond 64 bits."""
    if at < end:
        first = load_u8(at)
        if first < 0x80:
            return (first >> 1) ^ -(first & 1), at + 1
    word, shift = np.uint64(0), np.uint64(0)
    while at < end:
        byte = np.uint64(load_u8(at))
        at += 1
        word |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            if shift == np.uint64(63) and byte > _ONE:
                break
            return signed(word >> _ONE) ^ -signed(word & _ONE), at
        shift += _SEVEN
        if shift > np.uint64(63):
            break
    return 0, BAD


@compiled
def read_string(at: int, end: int) -> tuple[int, int]:
    """(address, address after it) of a text or bytes."""
    size, at = read_varint(at, end)
    if at == BAD or not 0 <= size <= end - at:
        return 0, BAD
    return at, at + size


@compiled
def read_block(at: int, end: int) -> tuple[int, int, int]:
    """(items, their bytes or -1 if unsaid, address after it) of a block's head."""
    count, at = read_varint(at, end)
    size = -1
    if count < 0 and at != BAD:
        count = -count
        size, at = read_varint(at, end)
        if not 0 <= size <= end - at:
            at = BAD
    # An item takes a byte or more (check_safe), so that no count can ask for more work than there are bytes.
    if not 0 <= count <= end - at:
        at = BAD
    return count, size, at
