"""Element types of the kernels in NumPy's words: float32, float16, bfloat16 (of ml_dtypes)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from kernels.gpu.runtime import Buffer, OutOfMemory, Size

MOST_DOWN = 65535
"""Blocks that a grid has in its second dimension at most."""
BFLOAT16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
FLOAT32 = np.dtype(np.float32)
FLOAT16 = np.dtype(np.float16)
RAW16 = np.dtype("V2")
"""How `__cuda_array_interface__` names bfloat16."""


def element(dtype: Any) -> np.dtype[Any]:
    """float32, float16 or bfloat16; raises TypeError for another type."""
    found: np.dtype[Any] = np.dtype(dtype)
    if found == RAW16:
        return BFLOAT16
    if found not in (FLOAT32, FLOAT16, BFLOAT16):
        raise TypeError(f"{found} values; float32, float16 and bfloat16 are known")
    return found


def defines(dtype: np.dtype[Any]) -> dict[str, int | str]:
    """What `element.cuh` wants to be told."""
    names = {FLOAT16: "HALF", BFLOAT16: "BF16"}
    return {names[dtype]: 1} if dtype in names else {}


def pack(dtype: np.dtype[Any], columns: int, *addresses: int) -> dict[str, int | str]:
    """16-byte accesses where rows of `columns` elements begin at multiples of 16 bytes, else single ones."""
    width = 16 // dtype.itemsize
    aligned = columns % width == 0 and all(address % 16 == 0 for address in addresses)
    return {"PACK": width} if aligned else {}


NAMES = "float32", "float16", "bfloat16", RAW16.name
"""The types by their names, for `kernels.arrays`."""


def address(buffer: Buffer) -> int:
    """Where a buffer lies in the device's memory."""
    return int(buffer.__cuda_array_interface__["data"][0])


def grid(across: int, down: int) -> Size:
    """A grid of two dimensions; raises OutOfMemory where it cannot be so tall, so that parts are tried."""
    if down > MOST_DOWN:
        raise OutOfMemory(f"a grid of {down:,} rows of blocks; {MOST_DOWN:,} are the most")
    return across, down, 1


def ceil_div(n: int, by: int) -> int:
    """The least whole number that is not below n / by."""
    return -(-n // by)
