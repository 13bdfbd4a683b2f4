"""What callers may pass: arrays of NumPy, torch or CuPy, in the processor's memory or on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.elements import element


def resident(**operands: Any) -> bool:
    """Whether the operands lie on a GPU (`__cuda_array_interface__`); raises ValueError if only some do."""
    there = [name for name, x in operands.items() if hasattr(x, "__cuda_array_interface__")]
    if there and len(there) < len(operands):
        here = [name for name in operands if name not in there]
        raise ValueError(f"{', '.join(there)} on a GPU, {', '.join(here)} not: bring them together")
    return bool(there)


def shape_of(x: Any) -> tuple[int, ...]:
    """Of an array here or on a GPU."""
    found = getattr(x, "shape", None)
    return tuple(map(int, np.shape(x) if found is None else found))


def dtype_of(x: Any) -> np.dtype[Any]:
    """Of an array here or on a GPU."""
    interface = getattr(x, "__cuda_array_interface__", None)
    return np.dtype(interface["typestr"]) if interface else here(x).dtype


def here(x: Any) -> NDArray[Any]:
    """An array of the processor's memory, through DLPack where it has that; without a copy if it can be."""
    if isinstance(x, np.ndarray):
        return x
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return np.from_dlpack(x)
    return np.asarray(x)


def check(name: str, x: Any, dimensions: int) -> None:
    """Raises ValueError for another number of axes, TypeError but for float32, float16, bfloat16."""
    shape = shape_of(x)
    if len(shape) != dimensions:
        raise ValueError(f"{name} has the shape {shape}; it needs {dimensions} axes")
    try:
        element(dtype_of(x))
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from error


def check_same_type(**operands: Any) -> None:
    """Raises TypeError if the operands' types differ."""
    found = {name: element(dtype_of(x)) for name, x in operands.items()}
    if len(set(found.values())) > 1:
        raise TypeError(", ".join(f"{name} is {dtype}" for name, dtype in found.items()))
