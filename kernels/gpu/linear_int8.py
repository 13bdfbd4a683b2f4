"""A linear layer in signed bytes on a device: `linear_int8.cu`."""

from __future__ import annotations

import numpy as np

from kernels.gpu.elements import ceil_div, grid
from kernels.gpu.runtime import Buffer, Runtime

STEPS = "dp4a", "mma"
BM = BN = 128
BK = 64
STAGES = 4


def quantise_rows(runtime: Runtime, x: Buffer, stride: int) -> tuple[Buffer, Buffer]:
    """Bytes (n, stride), zeros beyond x's columns, and scales (n,) of x (n, k) float32."""
    rows, columns = x.shape
    data, scales = runtime.empty((rows, stride), np.int8), runtime.empty(rows, np.float32)
    if rows:
        kernel = runtime.kernel("linear_int8.cu", "quantise_rows")
        arguments = x, data, scales, *map(np.int32, (rows, columns, stride))
        kernel(*arguments, grid=(ceil_div(rows, 8), 1, 1), block=(32, 8, 1))
    return data, scales


def linear(
    runtime: Runtime,
    x: Buffer,
    scale_x: Buffer,
    w: Buffer,
    scale_w: Buffer,
    bias: Buffer,
    step: str,
) -> Buffer:
    """(m, n) float32 of bytes x (m, k) and w (n, k), k a multiple of 16; `step`: one of STEPS."""
    (m, k), n = x.shape, w.shape[0]
    y = runtime.empty((m, n), np.float32)
    if m * n == 0:
        return y
    kernel = runtime.kernel("linear_int8.cu", f"linear_{step}")
    if step == "dp4a":
        blocks, shared = grid(ceil_div(n, 64), ceil_div(m, 64)), 0
    else:
        blocks, shared = grid(ceil_div(n, BN), ceil_div(m, BM)), STAGES * (BM + BN) * BK
    kernel(
        *(x, scale_x, w, scale_w, bias, y),
        *map(np.int32, (m, n, k)),
        grid=blocks,
        block=(256, 1, 1),
        shared=shared,
    )
    return y
