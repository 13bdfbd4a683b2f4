"""Memory that is used again: fresh pages cost the kernel more than filling them costs us."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST = 1 << 15, 1 << 23
"""Blocks outside these sizes are left to the general allocator, bytes."""
KEPT = 8
"""So many free blocks of each size are kept."""


class Buffers:
    """Lends blocks of bytes. A block is lent anew once no array refers to it; any thread may ask."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)

    def take(self, size: int) -> NDArray[np.uint8]:
        """An array of `size` bytes with anything in them."""
        if not SMALLEST < size <= LARGEST:
            return np.empty(size, np.uint8)
        capacity = 1 << (size - 1).bit_length()
        try:
            block = self._free[capacity].pop()
        except IndexError:
            block = np.empty(capacity, np.uint8)
        return np.asarray(_Lent(block, self._free[capacity]))[:size]


class _Lent:
    """A block that goes back when the last array over it is gone: each array keeps this object alive."""

    __slots__ = ("__array_interface__", "_block", "_home")

    def __init__(self, block: NDArray[np.uint8], home: list[NDArray[np.uint8]]) -> None:
        self._block, self._home = block, home
        self.__array_interface__: dict[str, Any] = block.__array_interface__

    def __del__(self) -> None:
        if len(self._home) < KEPT:
            self._home.append(self._block)
