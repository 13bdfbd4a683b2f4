"""NumPy references of the drift statistics: the truth that every faster kernel is compared with.

All of them compare histograms over the same bins. They are small (tens of bins), so sums are exact
(`math.fsum`): the order of the bins does not change the last bit.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]

DECIMALS = 9
"""Statistics are rounded before they enter the log, so that libraries' last bits do not."""


def bin_index(x: ArrayLike, edges: ArrayLike) -> Counts:
    """Bin of each value, shape (n,): bin i holds `edges[i-1] <= x < edges[i]`; -1 for NaN.

    `edges`: the k inner edges of k+1 bins, ascending. The same rule as `streams.bins.Bins.index`.
    """
    values = np.asarray(x, dtype=np.float64)
    index = np.searchsorted(np.asarray(edges, dtype=np.float64), values, side="right")
    return np.where(np.isnan(values), -1, index).astype(np.int64)


def histogram(x: ArrayLike, edges: ArrayLike) -> Counts:
    """Counts per bin, shape (k+1,) for k inner edges; NaNs are not counted (see `bin_index`)."""
    index = bin_index(x, edges)
    return np.bincount(index[index >= 0], minlength=np.size(edges) + 1).astype(np.int64)


def psi(p_counts: ArrayLike, q_counts: ArrayLike) -> float:
    """Population stability index: sum over bins of (p - q) ln(p / q), nats, >= 0, symmetric.

    Source: Yurdakul & Naranjo, "Statistical properties of the population stability index" (2020):
    without drift, PSI / (1/n + 1/m) tends to chi-squared with B-1 degrees of freedom.

    An empty bin would make the logarithm infinite, so both sides are mixed with the uniform histogram at
    the *same* rate: p' = (1 - w) p + w / B, w = (B/2) / (min(n, m) + B/2), which is Jeffreys' half a
    row per bin for the smaller side. (Half a row on either side, as is common, shifts a small window
    further than a large reference, so that equal shares look like drift in rare bins.) Bins that are
    empty on both sides say nothing and are left out. An empty side is no evidence: 0.
    """
    p, q = _pair(p_counts, q_counts)
    n, m = p.sum(), q.sum()
    if n == 0 or m == 0:
        return 0.0
    filled = (p + q) > 0
    bins = int(filled.sum())
    w = bins / 2 / (min(n, m) + bins / 2)
    p = (1 - w) * p[filled] / n + w / bins
    q = (1 - w) * q[filled] / m + w / bins
    return max(0.0, math.fsum(((p - q) * np.log(p / q)).tolist()))


def ks(p_counts: ArrayLike, q_counts: ArrayLike) -> float:
    """Kolmogorov-Smirnov distance of two histograms: the largest gap of their cumulative shares, 0..1.

    Binned, it is a lower bound of the distance of the samples. An empty side gives 0.
    """
    p, q = _pair(p_counts, q_counts)
    n, m = p.sum(), q.sum()
    if n == 0 or m == 0:
        return 0.0
    return float(np.max(np.abs(np.cumsum(p) / n - np.cumsum(q) / m)))


def js(p_counts: ArrayLike, q_counts: ArrayLike) -> float:
    """Jensen-Shannon distance: the root of the divergence in bits, 0 (equal) .. 1 (disjoint).

    Source: Endres & Schindelin, "A new metric for probability distributions" (2003). An empty side
    gives 0.
    """
    p, q = _pair(p_counts, q_counts)
    n, m = p.sum(), q.sum()
    if n == 0 or m == 0:
        return 0.0
    p, q = p / n, q / m
    bits = math.fsum(_relative(p, (p + q) / 2) + _relative(q, (p + q) / 2)) / 2
    return math.sqrt(min(1.0, max(0.0, bits)))


def _relative(p: NDArray[np.float64], q: NDArray[np.float64]) -> list[float]:
    """Terms of the Kullback-Leibler divergence in bits; 0 ln 0 is 0."""
    filled = p > 0
    terms: list[float] = (p[filled] * np.log2(p[filled] / q[filled])).tolist()
    return terms


def _pair(p: ArrayLike, q: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    left, right = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"histograms over different bins: shapes {left.shape} and {right.shape}")
    return left, right
