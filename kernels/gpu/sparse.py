"""Sparse matrix times vector on a device: `kernels/cuda/spmv.cu`."""

from __future__ import annotations

import numpy as np

from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.types import element_and_sum, line

THREADS = 256
SCALAR_UP_TO = 4.0
"""Mean entries of a row up to which a thread takes a whole row."""


def lanes_for(mean: float) -> int:
    """Threads of a row with so many entries: 1, or the power of two up to 32 that holds them."""
    if mean <= SCALAR_UP_TO:
        return 1
    return min(32, 1 << (int(np.ceil(mean)) - 1).bit_length())


def spmv(
    runtime: Runtime,
    offsets: Buffer,
    columns: Buffer,
    values: Buffer,
    x: Buffer,
    *,
    lanes: int | None = None,
) -> Buffer:
    """A x, (rows,). offsets: (rows + 1,) int64. columns: (k,) int32. values: (k,), x: (m,) of one dtype.

    `lanes`: threads of a row, a power of two up to 32; None: after the mean entries of a row. Checked by
    the caller.
    """
    rows = offsets.shape[0] - 1
    y = runtime.empty(rows, values.dtype)
    if rows == 0:
        return y
    lanes = lanes_for(values.shape[0] / rows) if lanes is None else lanes
    name = "spmv_scalar" if lanes == 1 else "spmv_warp"
    kernel = runtime.kernel("spmv.cu", name, **element_and_sum(values.dtype))
    last = () if lanes == 1 else (np.int32(lanes),)
    kernel(
        *(offsets, columns, values, x, y, np.int64(rows), *last),
        grid=line(-(-rows * lanes // THREADS)),
        block=(THREADS, 1, 1),
    )
    return y
