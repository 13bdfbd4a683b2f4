"""Vector addition on a device: `kernels/cuda/vector_add.cu`."""

from __future__ import annotations

import numpy as np

from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.tuned import parameter
from kernels.gpu.types import aligned, blocks_for, line, vector

STEPS = "vector_add_scalar", "vector_add"
THREADS = 256
BLOCKS = 1 << 16
"""Most of them: enough for one vector a thread up to 2^26 elements."""


def add(
    runtime: Runtime,
    a: Buffer,
    b: Buffer,
    out: Buffer | None = None,
    *,
    step: str = STEPS[-1],
    threads: int | None = None,
) -> Buffer:
    """a + b into `out`; both (n,), of one dtype: checked by the caller. In vectors where all are aligned."""
    n = a.shape[0]
    out = runtime.empty(n, a.dtype) if out is None else out
    threads = threads or parameter(runtime, "add", n, "threads", THREADS)
    if n == 0:
        return out
    if not aligned(a, b, out):
        step = STEPS[0]
    width = 16 // a.dtype.itemsize if step == "vector_add" else 1
    kernel = runtime.kernel("vector_add.cu", step, **vector(a.dtype))
    blocks = blocks_for(n, threads * width, BLOCKS)
    kernel(a, b, out, np.int64(n), grid=line(blocks), block=(threads, 1, 1))
    return out
