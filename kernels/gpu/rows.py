"""Softmax, layer norm and GeLU on a device: a warp or a block per row, or an element a thread."""

from __future__ import annotations

import numpy as np

from kernels.gpu.elements import address, ceil_div, defines, element, pack
from kernels.gpu.runtime import Buffer, Runtime

WARPS = 8
"""Rows of a block where each has a warp."""
MOST_STEPS = 8
"""Packs of a row that a lane holds in registers; a longer row gets a block."""


def softmax(runtime: Runtime, x: Buffer) -> Buffer:
    """Along the last of two axes; float32, float16 or bfloat16."""
    return _rows(runtime, "softmax", x)


def layer_norm(
    runtime: Runtime, x: Buffer, weight: Buffer, bias: Buffer, epsilon: float = 1e-5
) -> Buffer:
    """Along the last of two axes; weight and bias of x's type."""
    return _rows(runtime, "layer_norm", x, (weight, bias), (np.float32(epsilon),))


def _rows(
    runtime: Runtime,
    name: str,
    x: Buffer,
    beside: tuple[Buffer, ...] = (),
    settings: tuple[np.float32, ...] = (),
) -> Buffer:
    """`name`_warp where a row fits into a warp's registers, else `name`_block.

    Both take x, what stands `beside` it, y, (the first: rows,) columns and `settings`.
    """
    dtype = element(x.dtype)
    rows, columns = x.shape
    y = runtime.empty(x.shape, dtype)
    if rows * columns == 0:
        return y
    packed = pack(dtype, columns, address(x), address(y))
    given, rest = (x, *beside, y), (np.int32(columns), *settings)
    steps = _steps(columns, packed)
    if steps:
        kernel = runtime.kernel(
            f"{name}.cu", f"{name}_warp", STEPS=steps, **defines(dtype), **packed
        )
        grid, block = (ceil_div(rows, WARPS), 1, 1), (32, WARPS, 1)
        kernel(*given, np.int32(rows), *rest, grid=grid, block=block)
    else:
        kernel = runtime.kernel(f"{name}.cu", f"{name}_block", **defines(dtype), **packed)
        kernel(*given, *rest, grid=(rows, 1, 1), block=(256, 1, 1))
    return y


def gelu(runtime: Runtime, x: Buffer, bias: Buffer | None = None, *, tanh: bool = False) -> Buffer:
    """Of every element of x (rows, columns), plus bias (columns,) if given."""
    dtype = element(x.dtype)
    y = runtime.empty(x.shape, dtype)
    n = int(np.prod(x.shape))
    if n == 0:
        return y
    columns = n if bias is None else x.shape[-1]
    packed = pack(dtype, columns, address(x), *([] if bias is None else [address(bias)]))
    kind: dict[str, int | str] = {"TANH": 1} if tanh else {}
    name = "gelu" if bias is None else "bias_gelu"
    kernel = runtime.kernel("gelu.cu", name, **defines(dtype), **packed, **kind)
    blocks = min(
        ceil_div(n, 256 * int(packed.get("PACK", 1))), 16 * runtime.properties.multiprocessors
    )
    grid, block = (blocks, 1, 1), (256, 1, 1)
    if bias is None:
        kernel(x, y, np.int64(n), grid=grid, block=block)
    else:
        kernel(x, bias, y, np.int64(n), np.int32(columns), grid=grid, block=block)
    return y


def _steps(columns: int, packed: dict[str, int | str]) -> int:
    """Packs per lane of a warp that has a row (a power of two), or 0 if a row is too long for one."""
    packs = ceil_div(columns, 32 * int(packed.get("PACK", 1)))
    most = MOST_STEPS if int(packed.get("PACK", 1)) <= 4 else MOST_STEPS // 2
    steps = 1 << (packs - 1).bit_length()
    return steps if steps <= most else 0
