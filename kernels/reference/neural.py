"""The truth of the building blocks of neural networks, in double precision; every device is held to it.

Inputs of any float type; results are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc

Floats = NDArray[np.float64]


def matmul(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """(m, k) times (k, n)."""
    return np.asarray(np.matmul(a.astype(np.float64), b.astype(np.float64)))


def softmax(x: NDArray[Any]) -> Floats:
    """exp(x) / sum of exp(x), along the last axis; NaN for rows with a NaN or an infinite maximum."""
    values = x.astype(np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def layer_norm(
    x: NDArray[Any], weight: NDArray[Any], bias: NDArray[Any], epsilon: float = 1e-5
) -> Floats:
    """(x - mean) / sqrt(variance + epsilon) * weight + bias along the last axis; weight, bias: (columns,).

    Ba, Kiros & Hinton, "Layer normalization" (2016).
    """
    values = x.astype(np.float64)
    apart = values - values.mean(axis=-1, keepdims=True)
    variance = (apart**2).mean(axis=-1, keepdims=True)
    scaled = apart / np.sqrt(variance + epsilon)
    return np.asarray(scaled * weight.astype(np.float64) + bias.astype(np.float64))


def gelu(x: NDArray[Any], *, tanh: bool = False) -> Floats:
    """x times the standard normal distribution's share below x, or its approximation through tanh.

    Hendrycks & Gimpel, "Gaussian error linear units" (2016).
    """
    values = x.astype(np.float64)
    if tanh:
        inner = np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)
        return np.asarray(0.5 * values * (1 + np.tanh(inner)))
    with np.errstate(invalid="ignore"):  # -inf times 0: NaN, as the formula has it
        return np.asarray(0.5 * values * erfc(-values / np.sqrt(2)))


def attention(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    *,
    causal: bool = False,
    scale: float | None = None,
) -> Floats:
    """softmax(scale * q k^T) v. q: (..., queries, d); k, v: (..., keys, d); scale: 1 / sqrt(d).

    `causal`: query i sees keys 0 .. i.
    """
    left, right = q.astype(np.float64), np.swapaxes(k.astype(np.float64), -1, -2)
    scores = np.matmul(left, right) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        seen = np.arange(k.shape[-2]) <= np.arange(q.shape[-2])[:, None]
        scores = np.where(seen, scores, -np.inf)
    return np.asarray(np.matmul(softmax(scores), v.astype(np.float64)))
