"""The canonical encoding (see `streams.canonical`) of rows that wait in a join's stores, compiled.

Byte for byte what `canonical.encode` writes for the dicts of a `LabelJoin` that holds the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams import canonical
from streams.event_key import key_bytes
from streams.store.hits import Keys, Store, Values

Write = Callable[[bytes], None]
Bytes = NDArray[np.uint8]
CHUNK_ROWS = 1 << 16
_FIXED_BYTES = 80
"""More than a row takes, besides the text of its version."""


def write_predictions(store: Store, versions: Sequence[str], write: Write) -> None:
    """{id: (time, (version, score))}"""
    keys, values = _sorted(store)
    texts: list[bytes] = []
    for version in versions:
        parts: list[bytes] = []
        canonical.encode(version, parts.append)
        texts.append(b"".join(parts))
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    joined = np.frombuffer(b"".join(texts) or b"\0", np.uint8)
    longest = max((len(text) for text in texts), default=0)
    write(b"m%d:" % len(keys))
    for first in range(0, len(keys), CHUNK_ROWS):
        rows = values[first : first + CHUNK_ROWS]
        out = np.empty(len(rows) * (_FIXED_BYTES + longest), np.uint8)
        size = _predictions(
            keys[first : first + CHUNK_ROWS],
            rows["time"],
            rows["version"],
            rows["score"].view(np.uint64),
            joined,
            ends,
            out,
        )
        write(out[:size].tobytes())


def write_labels(
    store: Store, more: Mapping[bytes, Sequence[tuple[int, int]]], write: Write
) -> None:
    """{id: [(time, label), ...]}"""
    keys, values = _sorted(store)
    write(b"m%d:" % len(keys))
    for key, first in zip(key_bytes(keys), values.tolist(), strict=True):
        canonical.encode(key, write)
        canonical.encode([first, *more.get(key, ())], write)


def _sorted(store: Store) -> tuple[Keys, Values]:
    """All rows in the order of their keys' bytes."""
    parts = list(store.scan())
    if not parts:  # a tree without a row yields no batch
        return np.empty((0, 2), np.uint64), np.empty(0)
    keys = np.concatenate([keys for keys, _ in parts])
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    return keys[order], np.concatenate([values for _, values in parts])[order]


@compiled
def _predictions(
    keys: Keys,
    time: NDArray[np.int64],
    version: NDArray[np.int64],
    score: NDArray[np.uint64],
    texts: Bytes,
    ends: NDArray[np.int64],
    out: Bytes,
) -> int:
    at = 0
    for row in range(len(keys)):
        at = _text(out, at, _KEY)
        at = _big_endian(out, at, keys[row, 0])
        at = _big_endian(out, at, keys[row, 1])
        at = _text(out, at, _PAIR)
        at = _integer(out, at, time[row])
        at = _text(out, at, _PAIR)
        end = ends[version[row]]
        begin = ends[version[row] - 1] if version[row] > 0 else 0
        at = _text(out, at, texts[begin:end])
        at = _text(out, at, _DOUBLE)
        at = _big_endian(out, at, _canonical_bits(score[row]))
    return at


_KEY = np.frombuffer(b"b16:", np.uint8)
_PAIR = np.frombuffer(b"l2:", np.uint8)
_DOUBLE = np.frombuffer(b"d", np.uint8)
_NAN = np.array([math.nan]).view(np.uint64)[0]
_MINUS_ZERO = np.uint64(1 << 63)
_INFINITY = np.uint64(0x7FF << 52)


@compiled
def _canonical_bits(bits: np.uint64) -> np.uint64:
    """-0.0 is 0.0, and every NaN is one."""
    if bits == _MINUS_ZERO:
        return np.uint64(0)
    return _NAN if bits & ~_MINUS_ZERO > _INFINITY else bits


@compiled
def _text(out: Bytes, at: int, text: Bytes) -> int:
    out[at : at + len(text)] = text
    return at + len(text)


@compiled
def _big_endian(out: Bytes, at: int, word: np.uint64) -> int:
    for byte in range(8):
        out[at + byte] = np.uint8(word >> np.uint64(56 - 8 * byte) & np.uint64(255))
    return at + 8


@compiled
def _integer(out: Bytes, at: int, value: int) -> int:
    """i<decimal>;"""
    out[at] = ord("i")
    at += 1
    if value < 0:
        out[at] = ord("-")
        at += 1
    left = np.uint64(abs(value))
    digits = 1
    scale = np.uint64(10)
    while digits < 19 and left >= scale:
        digits += 1
        scale *= np.uint64(10)
    for place in range(digits - 1, -1, -1):
        out[at + place] = ord("0") + np.uint8(left % np.uint64(10))
        left //= np.uint64(10)
    out[at + digits] = ord(";")
    return at + digits + 1
