"""Bytes of a text at an address: equality, and whether they are UTF-8."""

from __future__ import annotations

import numpy as np

from infra.jit import compiled
from schemas.columnar.memory import load_u8, load_u32, load_u64

_HIGH_BITS = np.uint64(0x8080808080808080)
_NONE = np.uint64(0)


@compiled
def equal(left: int, right: int, size: int) -> bool:
    """True if the `size` bytes at both addresses are the same."""
    if size >= 8:
        last = size - 8
        for at in range(0, last, 8):
            if load_u64(left + at) != load_u64(right + at):
                return False
        return bool(load_u64(left + last) == load_u64(right + last))
    if size >= 4:
        last = size - 4
        return bool(
            load_u32(left) == load_u32(right) and load_u32(left + last) == load_u32(right + last)
        )
    for at in range(size):  # noqa: SIM110 - numba compiles no generator
        if load_u8(left + at) != load_u8(right + at):
            return False
    return True


@compiled
def valid_utf8(at: int, size: int) -> bool:
    """True for what Python decodes strictly: no surrogates, nothing overlong, nothing above U+10FFFF."""
    end = at + size
    while at < end:
        if at + 8 <= end and load_u64(at) & _HIGH_BITS == _NONE:
            at += 8
            continue
        width = _character(at, end)
        if width == 0:
            return False
        at += width
    return True


@compiled
def _character(at: int, end: int) -> int:
    """Bytes of the character at `at`, 0 if it is none (Unicode 16, table 3-7)."""
    first = load_u8(at)
    if first < 0x80:
        return 1
    if 0xC2 <= first <= 0xDF:
        width, low, high = 2, 0x80, 0xBF
    elif 0xE0 <= first <= 0xEF:
        width = 3
        low = 0xA0 if first == 0xE0 else 0x80
        high = 0x9F if first == 0xED else 0xBF
    elif 0xF0 <= first <= 0xF4:
        width = 4
        low = 0x90 if first == 0xF0 else 0x80
        high = 0x8F if first == 0xF4 else 0xBF
    else:
        return 0
    if at + width > end or not low <= load_u8(at + 1) <= high:
        return 0
    for place in range(2, width):
        if not 0x80 <= load_u8(at + place) <= 0xBF:
            return 0
    return width
