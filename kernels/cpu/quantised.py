"""A linear layer in signed bytes on the processor: exact sums through BLAS."""

from __future__ import annotations

import numpy as np

from kernels.reference.quantised import Bytes, Singles, quantise_rows

__all__ = ["linear", "quantise_rows"]

EXACT = (1 << 24) // 127**2
"""Products of bytes that float32 adds up without rounding, in any order: 1040."""


def linear(x: Bytes, scale_x: Singles, w: Bytes, scale_w: Singles, bias: Singles) -> Singles:
    """As `kernels.reference.quantised.linear`, bit by bit: partial sums below 2^24 are exact in float32."""
    sums = np.zeros((len(x), len(w)), np.int32)
    for first in range(0, x.shape[1], EXACT):
        part = slice(first, first + EXACT)
        sums += (x[:, part].astype(np.float32) @ w[:, part].astype(np.float32).T).astype(np.int32)
    out = sums.astype(np.float32)
    out *= scale_x[:, None] * scale_w[None, :]
    out += bias
    return out
