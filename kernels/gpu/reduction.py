"""Sums, minima and maxima on a device: `kernels/cuda/reduction.cu`."""

from __future__ import annotations

from typing import Any

import numpy as np

from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.types import VECTORS, aligned, blocks_for, code, element_and_sum, line, wider

OPERATIONS = "sum", "min", "max"
STEPS = "reduce_atomic", "reduce_tree", "reduce_warp", "reduce_vector"
THREADS = 256
ITEMS = 16
"""Elements of a thread, at least."""
BLOCKS = 1056
"""At most, whatever the device: the grid decides the order of the additions, so the bits of a sum."""


def identity(operation: str, dtype: np.dtype[Any]) -> np.generic:
    """What changes no result, in the type that elements of `dtype` are summed in."""
    kind = wider(dtype)
    if operation == "sum":
        value: Any = 0
    elif kind.kind == "f":
        value = np.inf if operation == "min" else -np.inf
    else:
        value = np.iinfo(kind).max if operation == "min" else np.iinfo(kind).min
    made: np.generic = kind.type(value)
    return made


class Reduction:
    """Buffers and kernel of one reduction, to be launched again and again; `out`: one value."""

    def __init__(
        self,
        runtime: Runtime,
        x: Buffer,
        operation: str = "sum",
        *,
        step: str = STEPS[-1],
        threads: int = THREADS,
    ) -> None:
        self._x, self._n = x, np.int64(x.shape[0])
        if step == "reduce_vector" and not aligned(x):
            step = "reduce_warp"
        self._identity = identity(operation, x.dtype)
        self._kernel = runtime.kernel(
            "reduction.cu",
            step,
            **element_and_sum(x.dtype),
            VECTOR=VECTORS[code(x.dtype)],
            OP=OPERATIONS.index(operation),
            BLOCK=threads,
        )
        self._atomic = step == STEPS[0]
        self._threads = threads
        self._blocks = blocks_for(x.shape[0], threads * ITEMS, BLOCKS)
        self._partials = runtime.empty(self._blocks, self._identity.dtype)
        self._finished = runtime.zeros(1, np.uint32)
        self.out = runtime.empty(1, self._identity.dtype)

    def launch(self) -> None:
        """Reduce once."""
        grid, block = line(self._blocks), (self._threads, 1, 1)
        if self._atomic:
            self.out.set(np.array([self._identity]))
            self._kernel(self._x, self._n, self.out, grid=grid, block=block)
        else:
            others = self._identity, self._partials, self._finished, self.out
            self._kernel(self._x, self._n, *others, grid=grid, block=block)


def reduce(
    runtime: Runtime, x: Buffer, operation: str = "sum", *, step: str = STEPS[-1]
) -> np.generic:
    """Of x, (n,), n > 0: a float64 for floats, an int64 for integers (which wraps around, as NumPy's)."""
    reduction = Reduction(runtime, x, operation, step=step)
    reduction.launch()
    result: np.generic = reduction.out.get()[0]
    return result
