"""The truth of cosine retrieval: every row's score, exactly rounded, and a full sort."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def cosine(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Cosine of the angle between two vectors, -1 .. 1; 0 if one of them has no length."""
    left, right = x.astype(np.float64), y.astype(np.float64)
    lengths = math.sqrt(math.fsum(left * left)) * math.sqrt(math.fsum(right * right))
    return math.fsum(left * right) / lengths if lengths > 0 else 0.0


def topk(vectors: NDArray[Any], query: NDArray[Any], k: int) -> list[tuple[int, float]]:
    """The k rows (row, cosine) with the largest cosine; of equal ones, the smaller row comes first."""
    scored = [(row, cosine(vector, query)) for row, vector in enumerate(vectors)]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]
