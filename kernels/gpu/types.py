"""What the sources call NumPy's types, and how large a grid should be."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.gpu.runtime import Buffer, Size

NAMES = {"f4": "float", "f8": "double", "i4": "int", "i8": "long long"}
VECTORS = {"f4": "float4", "f8": "double2", "i4": "int4", "i8": "longlong2"}
WIDER = {"f4": "f8", "f8": "f8", "i4": "i8", "i8": "i8"}
"""What elements are summed in."""


def code(dtype: np.dtype[Any]) -> str:
    """Kind and bytes; raises TypeError for a type that these kernels are not written for."""
    found = f"{dtype.kind}{dtype.itemsize}"
    if found not in NAMES:
        raise TypeError(f"{dtype} is none of float32, float64, int32, int64")
    return found


def wider(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that elements of `dtype` are summed in."""
    return np.dtype(WIDER[code(dtype)])


def element(dtype: np.dtype[Any]) -> dict[str, int | str]:
    """Macro T."""
    return {"T": NAMES[code(dtype)]}


def element_and_sum(dtype: np.dtype[Any]) -> dict[str, int | str]:
    """Macros T and ACC."""
    return {"T": NAMES[code(dtype)], "ACC": NAMES[WIDER[code(dtype)]]}


def vector(dtype: np.dtype[Any]) -> dict[str, int | str]:
    """Macros T, VECTOR (16 bytes) and WIDE (four elements, not two)."""
    return {
        "T": NAMES[code(dtype)],
        "VECTOR": VECTORS[code(dtype)],
        "WIDE": int(dtype.itemsize == 4),
    }


def aligned(*buffers: Buffer) -> bool:
    """Whether vectors of 16 bytes may be loaded: of lent memory that is not certain."""
    return all(b.__cuda_array_interface__["data"][0] % 16 == 0 for b in buffers)


def line(blocks: int) -> Size:
    """A grid of one dimension, of at least one block."""
    return max(1, blocks), 1, 1


def blocks_for(n: int, each: int, most: int) -> int:
    """Blocks that do `each` elements or, if there are too many, several times that."""
    return max(1, min(most, -(-n // each)))
