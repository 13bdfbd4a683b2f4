"""A 128-bit key hashed to 64 bits, the same on any machine: the order of everything in a store."""

from __future__ import annotations

import numpy as np

from infra.jit import compiled

_A = np.uint64(0x9E3779B97F4A7C15)
_B = np.uint64(0xBF58476D1CE4E5B9)
_C = np.uint64(0x94D049BB133111EB)
_S27, _S29, _S30, _S31 = np.uint64(27), np.uint64(29), np.uint64(30), np.uint64(31)


@compiled
def key_hash(high: np.uint64, low: np.uint64) -> np.uint64:
    """Finalizer of SplitMix64 (Steele, Lea & Flood 2014), over one half mixed into the other."""
    x = low * _A
    x = high ^ x ^ (x >> _S29)
    x = (x ^ (x >> _S30)) * _B
    x = (x ^ (x >> _S27)) * _C
    return x ^ (x >> _S31)
