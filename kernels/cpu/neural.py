"""Building blocks of neural networks on the processor: BLAS and vectorised NumPy, a compiled loop for erfc.

16-bit types are computed in float32 and rounded once at the end, as the kernels do.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled

Array = NDArray[Any]
Singles = NDArray[np.float32]

CHUNK = 1 << 16
"""Elements that are worked on at a time, so that they stay in the cache between steps."""
SCORES = 1 << 22
"""Scores of attention that are held at a time."""


def matmul(a: Array, b: Array) -> Array:
    """(m, k) times (k, n), in a's type."""
    return np.asarray(np.matmul(_single(a), _single(b)).astype(a.dtype, copy=False))


def softmax(x: Array) -> Array:
    """Along the last of two axes."""
    out = np.empty_like(x)
    for rows in _row_chunks(x):
        out[rows] = _softmax(_single(x[rows]))
    return out


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Array:
    """Along the last of two axes."""
    out = np.empty_like(x)
    for rows in _row_chunks(x):
        values = _single(x[rows])
        apart = values - values.mean(axis=1, keepdims=True)
        apart -= apart.mean(axis=1, keepdims=True)  # what rounding took from the mean
        variance = (apart * apart).mean(axis=1, keepdims=True)
        apart *= 1 / np.sqrt(variance + np.float32(epsilon))
        out[rows] = apart * _single(weight) + _single(bias)
    return out


def gelu(x: Array, bias: Array | None, *, tanh: bool) -> Array:
    """Of every element of x (rows, columns), plus bias (columns,) if given."""
    out = np.empty_like(x)
    for rows in _row_chunks(x):
        values = _single(x[rows])
        if bias is not None:
            values = values + _single(bias)
        out[rows] = _gelu(values, tanh=tanh)
    return out


def attention(q: Array, k: Array, v: Array, *, causal: bool, scale: float, gelu: str) -> Array:
    """(heads, queries, d): softmax(scale q k^T) v, as many queries at a time as SCORES allows."""
    out = np.empty_like(q)
    keys = k.shape[1]
    step = max(1, SCORES // keys)
    for head in range(len(q)):
        right, values = _single(k[head]).T * np.float32(scale), _single(v[head])
        for first in range(0, q.shape[1], step):
            queries = slice(first, first + step)
            scores = _single(q[head, queries]) @ right
            if causal:
                place = np.arange(first, first + len(scores))[:, None]
                scores[np.arange(keys) > place] = -np.inf
            result = _softmax(scores) @ values
            out[head, queries] = _gelu(result, tanh=gelu == "tanh") if gelu else result
    return out


def _softmax(values: Singles) -> Singles:
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(values - values.max(axis=1, keepdims=True))
        powers *= 1 / powers.sum(axis=1, keepdims=True)
    return np.asarray(powers)


def _gelu(values: Singles, *, tanh: bool) -> Singles:
    if not tanh:
        exact = np.empty_like(values)
        _gelu_exact(values.reshape(-1), exact.reshape(-1))
        return exact
    with np.errstate(over="ignore", invalid="ignore"):
        inner = values * values * values * np.float32(0.044715) + values
        inner *= np.float32(math.sqrt(2 / math.pi))
        return np.asarray(np.float32(0.5) * values * (np.tanh(inner) + np.float32(1)))


@compiled
def _gelu_exact(x: Any, out: Any) -> None:
    for i in range(len(x)):
        out[i] = np.float32(0.5) * x[i] * math.erfc(np.float32(-0.70710678118654752) * x[i])


def _single(x: Array) -> Singles:
    return np.ascontiguousarray(x, np.float32)


def _row_chunks(x: Array) -> list[slice]:
    rows = max(1, CHUNK // max(1, x.shape[1]))
    return [slice(first, first + rows) for first in range(0, len(x), rows)]
