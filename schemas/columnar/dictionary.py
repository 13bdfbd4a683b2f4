"""Texts as small integers: an interning dictionary that compiled loops and Python share.

Open addressing with linear probing over XXH64; two texts are the same only if their bytes are. Codes count
from 0 in the order of interning and never change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from schemas.columnar.columns import UNKNOWN_CODE
from schemas.columnar.hashing import xxh64
from schemas.columnar.memory import (
    copy,
    load_i32,
    load_i64,
    load_u64,
    signed,
    store_i32,
    store_i64,
    store_u64,
)
from schemas.columnar.text import equal, valid_utf8

CAPACITY = 65_536
"""Texts that a batch may add to a dictionary unless told otherwise."""
MAX_TEXT_BYTES = 1_024
"""Longer texts get a code only from Python: they are no categories."""
FULL = -3
"""`intern`: no room; `Dictionary.reserve`, then try again."""
NOT_UTF8 = -4

# Words of the state, at 8 bytes each.
_SLOTS = 0  # address: int32, code or _FREE
_MASK = 8  # number of slots - 1
_HASHES = 16  # address: uint64 by code
_STARTS = 24  # address: int64 by code, and the end of the last text
_TEXTS = 32  # address: all texts, one after the other
_COUNT = 40  # codes in use
_ROOM = 48  # codes that hashes and starts can hold
_TEXT_ROOM = 56  # bytes that texts can hold
_LIMIT = 64  # codes that `intern` may reach
_KEPT = 72  # codes of events that were read to their end
_LAST = 80  # code found last
_LAST_TEXT = 88  # its address
_LAST_SIZE = 96  # its bytes, -1 for none
_STATE_WORDS = 13
_FREE = -1
_SEED = np.uint64(0x636F6465)


class Dictionary:
    """Thread-safe; a decoder holds `lock` while it reads a batch."""

    def __init__(
        self, capacity: int = CAPACITY, lock: AbstractContextManager[object] | None = None
    ) -> None:
        self._lock = lock or threading.RLock()
        self._state = np.zeros(_STATE_WORDS, np.int64)
        self._slots = np.full(64, _FREE, np.int32)
        self._hashes = np.zeros(32, np.uint64)
        self._starts = np.zeros(33, np.int64)
        self._texts = np.zeros(1_024, np.uint8)
        self._values: list[str] = []
        self._state[_LIMIT // 8] = capacity
        self._link()

    @property
    def address(self) -> int:
        """Of the state, for `intern`; valid as long as this object."""
        return int(self._state.ctypes.data)

    @property
    def values(self) -> list[str]:
        """The texts by code; a copy."""
        with self._lock:
            count = int(self._state[_COUNT // 8])
            for code in range(len(self._values), count):
                start, end = self._starts[code : code + 2]
                self._values.append(self._texts[start:end].tobytes().decode())
            return list(self._values)

    def __len__(self) -> int:
        return int(self._state[_COUNT // 8])

    def code(self, text: str) -> int:
        """The code of `text`, interned if need be whatever the capacity."""
        return self._code(text.encode(), True)

    def codes(self, texts: Iterable[str]) -> NDArray[np.int32]:
        """The code of each text."""
        return np.array([self.code(text) for text in texts], np.int32)

    def code_within(self, text: bytes) -> int:
        """The code of a UTF-8 text as a compiled loop gives it: UNKNOWN_CODE beyond the capacity."""
        return self._code(text, False)

    def reserve(self) -> None:
        """Make room for one more text of data, if there is none."""
        count = len(self)
        texts_left = int(self._state[_TEXT_ROOM // 8]) - int(self._starts[count])
        if count >= len(self._hashes) or texts_left < MAX_TEXT_BYTES:
            self.grow()

    def grow(self) -> None:
        """Make room for as many texts again."""
        with self._lock:
            self._hashes = np.concatenate((self._hashes, np.zeros_like(self._hashes)))
            self._starts = np.concatenate((self._starts, np.zeros_like(self._starts[1:])))
            self._texts = np.concatenate((self._texts, np.zeros_like(self._texts)))
            self._slots = np.full(2 * len(self._slots), _FREE, np.int32)
            self._link()
            _rehash(self.address)

    def _code(self, encoded: bytes, whatever: bool) -> int:
        text = np.frombuffer(encoded or b"\0", np.uint8)
        with self._lock:
            while (code := intern(self.address, text.ctypes.data, len(encoded), whatever)) == FULL:
                self.grow()
            keep(self.address)
        return int(code)

    def _link(self) -> None:
        state = self._state
        state[_SLOTS // 8], state[_MASK // 8] = self._slots.ctypes.data, len(self._slots) - 1
        state[_HASHES // 8], state[_ROOM // 8] = self._hashes.ctypes.data, len(self._hashes)
        state[_STARTS // 8] = self._starts.ctypes.data
        state[_TEXTS // 8], state[_TEXT_ROOM // 8] = self._texts.ctypes.data, len(self._texts)
        state[_LAST_SIZE // 8] = -1


@compiled
def intern(state: int, text: int, size: int, whatever: bool) -> int:
    """The code of a text, new or not; UNKNOWN_CODE, FULL or NOT_UTF8.

    A new text is kept only once `keep` says so; `whatever` ignores the limits of capacity and length.
    """
    if size == load_i64(state + _LAST_SIZE) and equal(text, load_i64(state + _LAST_TEXT), size):
        return load_i64(state + _LAST)
    mixed = xxh64(text, size, _SEED)
    slot, code = _find(state, text, size, mixed)
    if code == _FREE:
        if not valid_utf8(text, size):
            return NOT_UTF8
        code = load_i64(state + _COUNT)
        if not whatever and (size > MAX_TEXT_BYTES or code >= load_i64(state + _LIMIT)):
            return UNKNOWN_CODE
        start = load_i64(load_i64(state + _STARTS) + 8 * code)
        if code >= load_i64(state + _ROOM) or start + size > load_i64(state + _TEXT_ROOM):
            return FULL
        _add(state, text, size, mixed, slot)
    _remember(state, code)
    return code


@compiled
def keep(state: int) -> None:
    """What was interned so far stays."""
    store_i64(state + _KEPT, load_i64(state + _COUNT))


@compiled
def undo(state: int) -> None:
    """Forget what was interned since the last `keep`."""
    code = load_i64(state + _COUNT)
    kept = load_i64(state + _KEPT)
    if code == kept:
        return
    while code > kept:
        code -= 1
        mixed = load_u64(load_i64(state + _HASHES) + 8 * code)
        slot = mixed & np.uint64(load_i64(state + _MASK))
        # The newest text is at the end of its chain of probes: freeing its slot breaks no other.
        while load_i32(_slot(state, slot)) != code:
            slot = (slot + np.uint64(1)) & np.uint64(load_i64(state + _MASK))
        store_i32(_slot(state, slot), _FREE)
    store_i64(state + _COUNT, kept)
    store_i64(state + _LAST_SIZE, -1)


@compiled
def _slot(state: int, slot: np.uint64) -> int:
    return load_i64(state + _SLOTS) + 4 * signed(slot)


@compiled
def _find(state: int, text: int, size: int, mixed: np.uint64) -> tuple[np.uint64, int]:
    """(slot, code) of a text; the slot that it would take and _FREE if it is not there."""
    mask = np.uint64(load_i64(state + _MASK))
    hashes, starts = load_i64(state + _HASHES), load_i64(state + _STARTS)
    slot = mixed & mask
    while True:
        code = load_i32(_slot(state, slot))
        if code == _FREE:
            return slot, code
        if load_u64(hashes + 8 * code) == mixed:
            start = load_i64(starts + 8 * code)
            same_size = load_i64(starts + 8 * code + 8) - start == size
            if same_size and equal(text, load_i64(state + _TEXTS) + start, size):
                return slot, code
        slot = (slot + np.uint64(1)) & mask


@compiled
def _add(state: int, text: int, size: int, mixed: np.uint64, slot: np.uint64) -> None:
    code, starts = load_i64(state + _COUNT), load_i64(state + _STARTS)
    start = load_i64(starts + 8 * code)
    copy(load_i64(state + _TEXTS) + start, text, size)
    store_i64(starts + 8 * code + 8, start + size)
    store_u64(load_i64(state + _HASHES) + 8 * code, mixed)
    store_i32(_slot(state, slot), code)
    store_i64(state + _COUNT, code + 1)


@compiled
def _remember(state: int, code: int) -> None:
    starts = load_i64(state + _STARTS)
    start = load_i64(starts + 8 * code)
    store_i64(state + _LAST, code)
    store_i64(state + _LAST_TEXT, load_i64(state + _TEXTS) + start)
    store_i64(state + _LAST_SIZE, load_i64(starts + 8 * code + 8) - start)


@compiled
def _rehash(state: int) -> None:
    """Fill the empty slots with the codes in use."""
    mask = np.uint64(load_i64(state + _MASK))
    for code in range(load_i64(state + _COUNT)):
        slot = load_u64(load_i64(state + _HASHES) + 8 * code) & mask
        while load_i32(_slot(state, slot)) != _FREE:
            slot = (slot + np.uint64(1)) & mask
        store_i32(_slot(state, slot), code)
