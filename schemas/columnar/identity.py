"""Text -> 128 bits that stand for it: a UUID's own bits, two hashes of anything else."""

from __future__ import annotations

import numpy as np

from infra.jit import compiled
from schemas.columnar.hashing import xxh64
from schemas.columnar.memory import load_u8, load_u32, load_u64, store_u64
from schemas.columnar.text import valid_utf8

_UUID_SIZE = 36
_HIGH_SEED = np.uint64(0x64726966746C6F67)
_LOW_SEED = np.uint64(0x6964656E74697479)
_DASH = 0x2D
_WIDTH = np.uint64(32)
_HIGHEST = np.uint64(0x8080808080808080)
_LOWEST = np.uint64(0x0101010101010101)
_NIBBLES = np.uint64(0x0F0F0F0F0F0F0F0F)
# Added to a byte below 0x80, each of these carries into its highest bit from a certain character on.
_FROM_0 = np.uint64(0x5050505050505050)
_AFTER_9 = np.uint64(0x4646464646464646)
_FROM_A = np.uint64(0x1F1F1F1F1F1F1F1F)
_AFTER_F = np.uint64(0x1919191919191919)


@compiled
def uuid_bits(at: int) -> tuple[bool, np.uint64, np.uint64]:
    """(is it canonical, high, low) of the 36 bytes at an address: lower-case 8-4-4-4-12, else it is none."""
    dashes = (
        load_u8(at + 8) == _DASH
        and load_u8(at + 13) == _DASH
        and load_u8(at + 18) == _DASH
        and load_u8(at + 23) == _DASH
    )
    a, b = load_u64(at), load_u32(at + 9) | (load_u32(at + 14) << _WIDTH)
    c, d = load_u32(at + 19) | (load_u32(at + 24) << _WIDTH), load_u64(at + 28)
    wrong = (_not_hex(a) | _not_hex(b) | _not_hex(c) | _not_hex(d)) & _HIGHEST
    high = (_packed(a) << _WIDTH) | _packed(b)
    low = (_packed(c) << _WIDTH) | _packed(d)
    return dashes and wrong == np.uint64(0), high, low


@compiled
def hashed(at: int, size: int) -> tuple[np.uint64, np.uint64]:
    """(high, low) of any text, the same in every process."""
    return xxh64(at, size, _HIGH_SEED), xxh64(at, size, _LOW_SEED)


@compiled
def identify(text: int, size: int, target: int) -> bool:
    """Store a text's 128 bits; False if it is not UTF-8."""
    if size == _UUID_SIZE:
        canonical, high, low = uuid_bits(text)
        if canonical:
            store_u64(target, high)
            store_u64(target + 8, low)
            return True
    if not valid_utf8(text, size):
        return False
    high, low = hashed(text, size)
    store_u64(target, high)
    store_u64(target + 8, low)
    return True


@compiled
def _not_hex(word: np.uint64) -> np.uint64:
    """Eight characters -> the highest bit of each byte that is not 0-9 or a-f."""
    ascii_only = word & ~_HIGHEST
    digit = (ascii_only + _FROM_0) & ~(ascii_only + _AFTER_9)
    letter = (ascii_only + _FROM_A) & ~(ascii_only + _AFTER_F)
    return ~(digit | letter) | word


@compiled
def _packed(word: np.uint64) -> np.uint64:
    """Eight hexadecimal characters, the first in the lowest byte -> their 32 bits."""
    nibbles = (word & _NIBBLES) + ((word >> np.uint64(6)) & _LOWEST) * np.uint64(9)
    pairs = ((nibbles << np.uint64(4)) | (nibbles >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    fours = ((pairs << np.uint64(8)) | (pairs >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return ((fours << np.uint64(16)) | (fours >> np.uint64(32))) & np.uint64(0xFFFFFFFF)
