"""Fused attention on a device: `attention.cu` in float32; in float16 and bfloat16 `attention_tensor.cu`, and
`attention_hopper.cu` for compute capability 9.0.
"""

from __future__ import annotations

import numpy as np

from kernels.gpu.elements import FLOAT32, ceil_div, defines, element, grid
from kernels.gpu.runtime import Buffer, DeviceFailed, Runtime
from kernels.gpu.tuned import parameter
from kernels.gpu.types import aligned

HEAD_DIMS = 64, 128
KEYS = 64
STEPS = "mma, 4 warps", "mma, 8 warps", "wgmma"
"""Of 16-bit types, what a tuner may choose from; a warp has 16 queries."""
DEFAULT = 1


def attention(
    runtime: Runtime,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    *,
    causal: bool = False,
    scale: float,
    gelu: str = "",
    step: int | None = None,
) -> Buffer:
    """(heads, queries, d) = softmax(scale q k^T) v; k, v: (heads, keys, d), d one of HEAD_DIMS, keys > 0.

    `gelu`: 'exact' or 'tanh' applies GeLU to the result. `step`: place in STEPS, for
    16-bit types. Raises DeviceFailed for a step that the device does not have, or unaligned memory.
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
        if step is None:
            step = parameter(runtime, "attention_16", heads * queries * dim, "step", DEFAULT)
        options |= defines(dtype)
        if STEPS[step] == "wgmma":
            if runtime.properties.compute_capability != (9, 0):
                raise DeviceFailed(
                    "attention_wgmma: only compute capability 9.0 has its instructions"
                )
            kernel = runtime.kernel("attention_hopper.cu", "attention_wgmma", **options)
            rows, threads, shared = 128, 256, 7 * 128 * dim * 2 + 1024
        else:
            warps = 4 if step == 0 else 8
            options |= {"WARPS": warps, "KEYS": KEYS}
            kernel = runtime.kernel("attention_tensor.cu", "attention_mma", **options)
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
