"""Bloom filters in blocks of one cache line: one memory access says that a key is surely not there.

Source: Putze, Sanders & Singler (2007), "Cache-, hash- and space-efficient Bloom filters". Six bits in
one block of 512 for each key, ten bits of filter a key: about 1 in 70 keys that are not there pass.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams.store.hits import Integer

BLOCK_WORDS = 8
BITS_PER_KEY = 10
PROBES = 6
_MIX = np.uint64(0xD6E8FEB86659FD93)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_NINE = np.uint64(9)
_IN_BLOCK = np.uint64(511)
_SIX = np.uint64(6)
_IN_WORD = np.uint64(63)
_ONE = np.uint64(1)

Bloom = NDArray[np.uint64]
"""Shape (blocks * BLOCK_WORDS,)."""


def blocks_for(keys: int) -> int:
    return max(1, -(-keys * BITS_PER_KEY // (BLOCK_WORDS * 64)))


@compiled
def add(bloom: Bloom, mixed: np.uint64) -> None:
    base = _block(bloom, mixed)
    bits = mixed * _MIX
    for _ in range(PROBES):
        bit = bits & _IN_BLOCK
        bloom[base + np.int64(bit >> _SIX)] |= _ONE << (bit & _IN_WORD)
        bits >>= _NINE


@compiled
def may_hold(bloom: Bloom, mixed: np.uint64) -> bool:
    """False: surely not."""
    base = _block(bloom, mixed)
    bits = mixed * _MIX
    for _ in range(PROBES):
        bit = bits & _IN_BLOCK
        if bloom[base + np.int64(bit >> _SIX)] & (_ONE << (bit & _IN_WORD)) == 0:
            return False
        bits >>= _NINE
    return True


@compiled
def _block(bloom: Bloom, mixed: np.uint64) -> Integer:
    blocks = np.uint64(len(bloom) // BLOCK_WORDS)
    return np.int64(((mixed & _LOW) * blocks) >> _HALF) * BLOCK_WORDS
