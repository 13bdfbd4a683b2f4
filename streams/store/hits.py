"""What every store answers, whether its rows lie in memory or on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
"""128-bit keys, shape (n, 2)."""
Words = NDArray[np.uint64]
"""Rows of 64-bit words: two of the key, then those of the value."""
Values = NDArray[Any]
"""Structured, shape (n,)."""
Mask = NDArray[np.bool_]
Places = NDArray[np.int64]
Integer = int | np.integer[Any]
"""Of whatever width a compiled loop has it in."""
KEY_WORDS = 2
NOWHERE = -1


class Hits(NamedTuple):
    """Answer to a batch of n keys; all arrays have n rows."""

    found: Mask
    values: Values
    """Zeros where nothing was found."""
    places: Places
    """Where each row lies, for `remove`; valid until the next `put` or `commit`."""


class Store(Protocol):
    """Rows of fixed width by 128-bit key; every call takes a batch."""

    def __len__(self) -> int: ...

    def put(self, keys: Keys, values: Values) -> None:
        """Insert or replace; of equal keys in one batch the last one stays."""

    def get(self, keys: Keys) -> Hits: ...

    def remove(self, places: Places) -> None:
        """Take out what `get` found at these places (NOWHERE is passed over)."""

    def expire(self, before: int) -> int:
        """Take out the rows whose time is less than `before`; returns how many there were."""

    def scan(self) -> Iterator[tuple[Keys, Values]]:
        """All rows, in no particular order, in batches."""


def word_width(dtype: np.dtype[Any]) -> int:
    """Words of a row (key and value); raises ValueError for a value that is not made of whole words."""
    if dtype.names is None or dtype.itemsize % 8 or dtype.hasobject:
        raise ValueError(
            f"values must be structured, of a multiple of 8 bytes, without objects: {dtype}"
        )
    return KEY_WORDS + dtype.itemsize // 8


def time_word(dtype: np.dtype[Any], name: str | None) -> int:
    """Where in a row the int64 field `name` lies, in words; NOWHERE for None."""
    if name is None:
        return NOWHERE
    assert dtype.fields is not None
    field, offset = dtype.fields[name][:2]
    if field != np.dtype("<i8") or offset % 8:
        raise ValueError(f"the time {name!r} must be an int64 at a multiple of 8 bytes: {dtype}")
    return KEY_WORDS + offset // 8


def as_words(keys: Keys, values: Values, dtype: np.dtype[Any]) -> tuple[Words, Words]:
    """Both as matrices of words; raises ValueError for other shapes or types."""
    if keys.shape != (len(keys), KEY_WORDS) or keys.dtype != np.uint64:
        raise ValueError(f"keys must be uint64 of shape (n, 2), not {keys.dtype} of {keys.shape}")
    if values.dtype != dtype or values.shape != (len(keys),):
        raise ValueError(
            f"values must be {len(keys)} of {dtype}, not {values.shape} of {values.dtype}"
        )
    width = dtype.itemsize // 8
    return np.ascontiguousarray(keys), np.ascontiguousarray(values).view(np.uint64).reshape(
        -1, width
    )
