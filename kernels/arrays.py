"""What public calls take for an array, and what they refuse.

NumPy arrays and whatever becomes one (lists, torch tensors of the processor, anything with `__array__` or
DLPack); arrays in a GPU's memory (torch, CuPy, buffers of ours: anything with `__cuda_array_interface__`),
which are used where they lie and never copied. Mixing both in a call is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.runtime import Buffer, Runtime, borrowed

Array = NDArray[Any]
NUMBERS = "float32", "float64", "int32", "int64"
FLOATS = "float32", "float64"


def resident(**arrays: Any) -> bool:
    """Whether they lie in a GPU's memory; raises TypeError if only some do."""
    there = {name: hasattr(x, "__cuda_array_interface__") for name, x in arrays.items()}
    if any(there.values()) and not all(there.values()):
        on = [name for name, is_there in there.items() if is_there]
        off = [name for name, is_there in there.items() if not is_there]
        raise TypeError(
            f"{', '.join(on)} on a GPU, but {', '.join(off)} not: move one to the other"
        )
    return any(there.values())


def taken(x: Any, name: str, kinds: tuple[str, ...] = NUMBERS, ndim: int = 1) -> Any:
    """`x` as a contiguous NumPy array, or as it is if it lies on a GPU.

    Raises TypeError for another dtype, ValueError for another number of dimensions.
    """
    x = array(x)
    shape, dtype = shape_of(x), dtype_of(x)
    if dtype.name not in kinds:
        raise TypeError(f"{name}: {dtype} is none of {', '.join(kinds)}")
    if len(shape) != ndim:
        raise ValueError(
            f"{name}: shape {tuple(shape)}; {ndim} dimension{'s'[: ndim - 1]} expected"
        )
    return x


def array(x: Any) -> Any:
    """`x` as a contiguous NumPy array of this processor's byte order, or as it is if it lies on a GPU."""
    if hasattr(x, "__cuda_array_interface__"):
        return x
    if not hasattr(x, "__array__") and hasattr(x, "__dlpack__"):
        x = np.from_dlpack(x)
    if isinstance(x, np.ndarray) and x.flags.c_contiguous and x.dtype.isnative:
        return x
    found = np.ascontiguousarray(x).reshape(np.shape(x))
    return found.astype(found.dtype.newbyteorder("="), copy=False)


def dtype_of(x: Any) -> np.dtype[Any]:
    """Of what `taken` gave."""
    return borrowed(x)[1] if hasattr(x, "__cuda_array_interface__") else x.dtype


def shape_of(x: Any) -> tuple[int, ...]:
    """Of an array here or on a GPU."""
    return borrowed(x)[0] if hasattr(x, "__cuda_array_interface__") else np.shape(x)


def same_shape(**arrays: Any) -> None:
    """Raises ValueError unless all have one shape."""
    found = {name: shape_of(x) for name, x in arrays.items()}
    if len(set(found.values())) > 1:
        raise ValueError(f"shapes differ: {', '.join(f'{name} {s}' for name, s in found.items())}")


def same_dtype(**arrays: Any) -> None:
    """Raises TypeError unless all have one dtype."""
    found = {name: dtype_of(x) for name, x in arrays.items()}
    if len(set(found.values())) > 1:
        raise TypeError(f"dtypes differ: {', '.join(f'{name} {d}' for name, d in found.items())}")


def on(runtime: Runtime, x: Any) -> Buffer:
    """`x` in the device's memory: lent if it is there, else a copy."""
    return runtime.borrow(x) if hasattr(x, "__cuda_array_interface__") else runtime.send(x)
