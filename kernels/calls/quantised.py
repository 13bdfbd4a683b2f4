"""A linear layer in signed bytes on the right device: the same bits on each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import arrays, dispatch
from kernels.cpu import quantised as cpu
from kernels.gpu import linear_int8 as gpu
from kernels.gpu.elements import ceil_div
from kernels.gpu.runtime import Runtime

MOST_COLUMNS = (2**31 - 1) // 127**2
"""Products of bytes that a 32-bit sum holds."""


@dataclass(frozen=True, slots=True)
class Int8Linear:
    """Weights (n, k) as bytes with a scale per output channel, and a bias (n,): made by `quantised`."""

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.float32]


def quantised(weight: Any, bias: Any = None) -> Int8Linear:
    """A layer of float weights (n, k), symmetric, 127 steps per channel.

    Raises ValueError for other shapes, and for weights that are not finite.
    """
    w = arrays.taken(weight, "weight", arrays.FLOATS, 2).astype(np.float32, copy=False)
    if w.shape[1] > MOST_COLUMNS:
        raise ValueError(f"weight: shape {w.shape}; at most {MOST_COLUMNS} columns")
    b = np.zeros(len(w), np.float32) if bias is None else np.asarray(bias, np.float32)
    if b.shape != (len(w),):
        raise ValueError(f"a bias of the shape {b.shape} for {len(w)} channels")
    data, scale = cpu.quantise_rows(w)
    if np.isnan(scale).any():
        raise ValueError("weights that are not finite")
    return Int8Linear(data, scale, b)


def linear_int8(x: Any, layer: Int8Linear) -> NDArray[np.float32]:
    """(m, n) float32: x (m, k), quantised per row on the way, times the layer's weights, plus its bias.

    Sums of products are exact integers, so every device gives the same bits. What quantisation itself costs
    is at most scale_x / 2 and scale_w / 2 per factor. A row of x with a NaN or an infinity gives NaN. Raises
    ValueError for shapes that do not fit.
    """
    rows = arrays.taken(x, "x", arrays.FLOATS, 2).astype(np.float32, copy=False)
    if rows.shape[1] != layer.weight.shape[1]:
        raise ValueError(f"x has the shape {rows.shape}, the weights {layer.weight.shape}")
    n, k = layer.weight.shape

    def device(runtime: Runtime) -> NDArray[np.float32]:
        out = np.empty((len(rows), n), np.float32)
        stride = max(16, ceil_div(k, 16) * 16)
        weight = np.zeros((n, stride), np.int8)
        weight[:, :k] = layer.weight
        weights, scales, biases = map(runtime.send, (weight, layer.scale, layer.bias))

        def some(start: int, stop: int) -> None:
            data, scale = gpu.quantise_rows(runtime, runtime.send(rows[start:stop]), stride)
            out[start:stop] = gpu.linear(runtime, data, scale, weights, scales, biases, "mma").get()

        dispatch.in_chunks(len(rows), some)
        return out

    def processor() -> NDArray[np.float32]:
        return cpu.linear(*cpu.quantise_rows(rows), layer.weight, layer.scale, layer.bias)

    return dispatch.run("linear_int8", rows.size * n, device, processor)
