"""A ring all-reduce over buffers of one device: `kernels/cuda/ring.cu`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.types import blocks_for, element

THREADS = 256
BLOCKS = 128


def all_reduce(runtime: Runtime, buffers: Sequence[Buffer]) -> None:
    """Give every buffer, (n,) of one dtype, the sum of all, in place."""
    ranks = len(buffers)
    if ranks < 2 or buffers[0].shape[0] == 0:
        return
    n = buffers[0].shape[0]
    macros = element(buffers[0].dtype)
    addresses = [buffer.__cuda_array_interface__["data"][0] for buffer in buffers]
    table = runtime.send(np.array(addresses, np.uint64))
    grid = blocks_for(-(-n // ranks), THREADS, BLOCKS), ranks, 1
    for name in ("ring_reduce", "ring_gather"):
        kernel = runtime.kernel("ring.cu", name, **macros)
        for step in range(ranks - 1):
            arguments = table, np.int64(n), np.int32(ranks), np.int32(step)
            kernel(*arguments, grid=grid, block=(THREADS, 1, 1))
