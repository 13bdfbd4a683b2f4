"""Fused attention on a device: `attention.cu` in float32, `attention_tensor.cu` in float16 and bfloat16."""

from __future__ import annotations

import numpy as np

from kernels.gpu.elements import FLOAT32, ceil_div, defines, element, grid
from kernels.gpu.runtime import Buffer, DeviceFailed, Runtime
from kernels.gpu.tuned import parameter
from kernels.gpu.types import aligned

HEAD_DIMS = 64, 128
WARPS = 8
KEYS = 64


def attention(
    runtime: Runtime,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    *,
    causal: bool = False,
    scale: float,
    gelu: str = "",
    warps: int | None = None,
) -> Buffer:
    """(heads, queries, d) = softmax(scale q k^T) v; k, v: (heads, keys, d), d one of HEAD_DIMS, keys > 0.

    `gelu`: 'exact' or 'tanh' applies GeLU to the result. `warps`: of a block, 16 queries each (16-bit types).
    """
    dtype = element(q.dtype)
    heads, queries, dim = q.shape
    keys = k.shape[1]
    out = runtime.empty(q.shape, dtype)
    if heads * queries == 0:
        return out
    if not aligned(q, k, v):
        raise DeviceFailed(
            "attention: memory that does not begin at a multiple of 16 bytes: copy it"
        )
    options: dict[str, int | str] = {"HEAD_DIM": dim}
    options |= {"CAUSAL": 1} if causal else {}
    options |= {"GELU_OUT": 1} if gelu else {}
    options |= {"TANH": 1} if gelu == "tanh" else {}
    if dtype == FLOAT32:
        kernel = runtime.kernel("attention.cu", "attention", **options)
        rows, threads = 64, 256
        shared = 4 * (64 * dim + KEYS * (dim + 4) + 64 * (KEYS + 4))
    else:
        warps = warps or parameter(runtime, "attention_mma", heads * queries * dim, "warps", WARPS)
        options |= {"WARPS": warps, "KEYS": KEYS}
        kernel = runtime.kernel("attention_tensor.cu", "attention_mma", **defines(dtype), **options)
        rows, threads = 16 * warps, 32 * warps
        shared = rows * dim * 2 + 4 * KEYS * dim * 2
    kernel(
        *(q, k, v, out),
        *(np.int32(queries), np.int32(keys), np.float32(scale)),
        grid=grid(ceil_div(queries, rows), heads),
        block=(threads, 1, 1),
        shared=shared,
    )
    return out
