"""Prefix sums on a device: `kernels/cuda/scan.cu`."""

from __future__ import annotations

import numpy as np

from kernels.gpu.runtime import Buffer, Runtime
from kernels.gpu.tuned import parameter
from kernels.gpu.types import element_and_sum, line, wider

THREADS = 256
ITEM_BYTES = 64
"""Of a thread."""


def scan(
    runtime: Runtime,
    x: Buffer,
    *,
    exclusive: bool = False,
    deterministic: bool = False,
    out: Buffer | None = None,
    threads: int | None = None,
) -> Buffer:
    """Prefix sums of x, (n,), in its dtype; integers wrap around. Floats are summed in float64.

    One pass with decoupled look-back, or two whose bits are the same on every run if `deterministic` (which
    integers are anyway).
    """
    n = x.shape[0]
    out = runtime.empty(n, x.dtype) if out is None else out
    threads = threads or parameter(runtime, "scan", n, "threads", THREADS)
    if n == 0:
        return out
    macros = element_and_sum(x.dtype) | {"EXCLUSIVE": int(exclusive), "THREADS": threads}
    tiles = -(-n // (threads * ITEM_BYTES // x.dtype.itemsize))
    grid, block = line(tiles), (threads, 1, 1)
    if deterministic and x.dtype.kind == "f":
        sums = runtime.empty(tiles, wider(x.dtype))
        runtime.kernel("scan.cu", "tile_sums", **macros)(
            x, np.int64(n), sums, grid=grid, block=block
        )
        before = runtime.zeros(1, sums.dtype)
        if tiles > 1:
            before = scan(runtime, sums, exclusive=True, deterministic=True, threads=threads)
        runtime.kernel("scan.cu", "scan_given", **macros)(
            x, out, np.int64(n), before, grid=grid, block=block
        )
        return out
    board = Board(runtime, tiles, 1)
    runtime.kernel("scan.cu", "scan", **macros)(
        x, out, np.int64(n), *board.arguments, grid=grid, block=block
    )
    return out


class Board:
    """What the tiles of a look-back say of themselves: see `kernels/cuda/lookback.cuh`."""

    def __init__(self, runtime: Runtime, tiles: int, words: int) -> None:
        self._status = runtime.zeros(tiles, np.uint32)
        self._words = runtime.empty((tiles, 2, words), np.uint64)
        self._ticket = runtime.zeros(1, np.uint32)

    @property
    def arguments(self) -> tuple[Buffer, Buffer, Buffer]:
        """Status, words and ticket, of one launch."""
        return self._status, self._words, self._ticket
