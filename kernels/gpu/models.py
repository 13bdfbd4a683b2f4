"""Batch scoring on a device: `trees.cu` and `linear_model.cu`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels.gpu.elements import FLOAT32, ceil_div
from kernels.gpu.runtime import Buffer, Runtime, TooLarge

BLOCK = 128
STAGED_BYTES = 48 * 1024
"""Rows of a block that are larger than this are not staged in shared memory."""
MOST_OUTPUTS = 64
BLOCKS_EACH = 16
"""Blocks per multiprocessor at most; a block goes on with further rows."""


def trees_sum(
    runtime: Runtime,
    nodes: Buffer,
    roots: Buffer,
    firsts: Buffer,
    values: Buffer,
    base: Buffer,
    x: Buffer,
    *,
    base_last: bool,
) -> Buffer:
    """(n, outputs): see `kernels.reference.models.trees_sum`; raises TooLarge for too many outputs."""
    (n, features), outputs = x.shape, base.shape[0]
    if outputs > MOST_OUTPUTS:
        raise TooLarge(f"{outputs} outputs; {MOST_OUTPUTS} are kept in registers")
    out = runtime.empty((n, outputs), values.dtype)
    if n == 0:
        return out
    shared = BLOCK * (features | 1) * x.dtype.itemsize
    options: dict[str, int | str] = {
        "X": "float" if x.dtype == FLOAT32 else "double",
        "SUM": "float" if values.dtype == FLOAT32 else "double",
        "OUTPUTS": outputs,
        "WIDTH": values.shape[1],
        "BLOCK": BLOCK,
    }
    staged = shared <= STAGED_BYTES
    options |= {"STAGED": 1} if staged else {}
    options |= {"BASE_LAST": 1} if base_last else {}
    kernel = runtime.kernel("trees.cu", "trees_sum", **options)
    kernel(
        *(nodes, roots, firsts, values, base, x, out),
        *(np.int64(n), np.int32(features), np.int32(roots.shape[0])),
        grid=(_blocks(runtime, n), 1, 1),
        block=(BLOCK, 1, 1),
        shared=shared if staged else 0,
    )
    return out


def linear_margins(
    runtime: Runtime, x: Buffer, center: Buffer, weight: Buffer, intercept: float
) -> Buffer:
    """(n,) float32: see `kernels.reference.models.linear_margins`; raises TooLarge for long rows."""
    n, features = x.shape
    out = runtime.empty(n, np.float32)
    shared = 4 * (BLOCK * (features | 1) + 2 * features)
    if shared > runtime.properties.shared_per_block:
        raise TooLarge(f"{features} features of {BLOCK} rows do not fit into shared memory")
    if n == 0:
        return out
    kernel = runtime.kernel("linear_model.cu", "linear_margins", BLOCK=BLOCK)
    kernel(
        *(x, center, weight, np.float32(intercept), out),
        *(np.int64(n), np.int32(features)),
        grid=(_blocks(runtime, n), 1, 1),
        block=(BLOCK, 1, 1),
        shared=shared,
    )
    return out


def node_records(nodes: NDArray[Any]) -> NDArray[Any]:
    """Nodes (threshold f8, feature i4, left i4) in the kernel's layout of 16 bytes."""
    if nodes.dtype.itemsize != 16:
        raise ValueError(f"nodes of {nodes.dtype.itemsize} bytes; 16 are the kernel's")
    return np.ascontiguousarray(nodes).view(np.uint8).reshape(len(nodes), 16)


def _blocks(runtime: Runtime, n: int) -> int:
    return min(ceil_div(n, BLOCK), BLOCKS_EACH * runtime.properties.multiprocessors)
