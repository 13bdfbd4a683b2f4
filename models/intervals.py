"""Confidence intervals of a mean difference between two models on the same rows (pure, no random number).

Rows that are near in time share their weather, so that they tell less than their number suggests: rows
are summed up in contiguous blocks of time, and blocks, not rows, count as independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

LEAST_BLOCKS = 8
"""Rows of a short time are cut into so many blocks, however wide a block should be."""
DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean difference, its standard error, and the blocks behind it."""

    mean: float
    error: float
    blocks: int

    def half(self, confidence: float) -> float:
        """Half the width of the two-sided Student t interval at `confidence` (0..1)."""
        return float(stdtrit(self.blocks - 1, (1 + confidence) / 2)) * self.error

    def low(self, confidence: float) -> float:
        return round(self.mean - self.half(confidence), DECIMALS)

    def high(self, confidence: float) -> float:
        return round(self.mean + self.half(confidence), DECIMALS)

    @classmethod
    def of_bounds(cls, low: float, high: float, confidence: float, blocks: int) -> Interval:
        """The interval that was written down as its bounds: any other confidence follows from it."""
        half = float(stdtrit(blocks - 1, (1 + confidence) / 2))
        return cls((low + high) / 2, (high - low) / 2 / half, blocks)


def blocks_of(times: NDArray[np.int64], width_ms: int) -> NDArray[np.int64]:
    """The block of each row, 0.. without gaps: `width_ms` wide, narrower if that makes too few."""
    if not len(times):
        return np.zeros(0, dtype=np.int64)
    first, last = int(times.min()), int(times.max())
    width = max(1, min(width_ms, math.ceil((last - first + 1) / LEAST_BLOCKS)))
    return np.unique((times - first) // width, return_inverse=True)[1].astype(np.int64)


def block_interval(differences: NDArray[np.float64], blocks: NDArray[np.int64]) -> Interval | None:
    """Mean of `differences` over rows, with a standard error that lets rows of a block hang together.

    The linearised variance of a ratio of block sums, B / (B - 1) * sum((S_b - mean * n_b)^2) / n^2 with B - 1
    degrees of freedom: Cochran (1977), Sampling Techniques, 6.4; it is the cluster-robust error CR1 of a
    regression on a constant (Cameron & Miller 2015). None with fewer than two blocks.
    """
    count = int(blocks.max(initial=-1)) + 1
    if count < 2:
        return None
    sums = np.bincount(blocks, weights=differences, minlength=count)
    sizes = np.bincount(blocks, minlength=count)
    mean = math.fsum(sums.tolist()) / len(differences)
    squares = math.fsum(((sums - mean * sizes) ** 2).tolist())
    error = math.sqrt(count / (count - 1) * squares) / len(differences)
    return Interval(mean, error, count)
