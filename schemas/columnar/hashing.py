"""XXH64 of the bytes at an address.

Source: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md, "XXH64 algorithm description".
"""

from __future__ import annotations

import numpy as np

from infra.jit import compiled
from schemas.columnar.memory import load_u8, load_u32, load_u64

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)


@compiled
def xxh64(at: int, size: int, seed: np.uint64) -> np.uint64:
    """The 64-bit hash of `size` bytes."""
    end = at + size
    if size >= 32:
        a, b = seed + _P1 + _P2, seed + _P2
        c, d = seed, seed - _P1
        while at + 32 <= end:
            a, b = _round(a, load_u64(at)), _round(b, load_u64(at + 8))
            c, d = _round(c, load_u64(at + 16)), _round(d, load_u64(at + 24))
            at += 32
        mixed = _rotated(a, 1) + _rotated(b, 7) + _rotated(c, 12) + _rotated(d, 18)
        mixed = _merged(_merged(_merged(_merged(mixed, a), b), c), d)
    else:
        mixed = seed + _P5
    mixed += np.uint64(size)
    while at + 8 <= end:
        mixed = _rotated(mixed ^ _round(np.uint64(0), load_u64(at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        mixed = _rotated(mixed ^ (load_u32(at) * _P1), 23) * _P2 + _P3
        at += 4
    while at < end:
        mixed = _rotated(mixed ^ (np.uint64(load_u8(at)) * _P5), 11) * _P1
        at += 1
    return _avalanche(mixed)


@compiled
def _rotated(word: np.uint64, bits: int) -> np.uint64:
    return (word << np.uint64(bits)) | (word >> np.uint64(64 - bits))


@compiled
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotated(lane + word * _P2, 31) * _P1


@compiled
def _merged(mixed: np.uint64, lane: np.uint64) -> np.uint64:
    return (mixed ^ _round(np.uint64(0), lane)) * _P1 + _P4


@compiled
def _avalanche(mixed: np.uint64) -> np.uint64:
    mixed ^= mixed >> np.uint64(33)
    mixed *= _P2
    mixed ^= mixed >> np.uint64(29)
    mixed *= _P3
    return mixed ^ (mixed >> np.uint64(32))
