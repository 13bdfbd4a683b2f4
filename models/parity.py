"""A model file carries a few rows and what it said of them: who loads it checks that it says so here, too.

The file's hash proves that its bytes are the registered ones, not that this machine's runtime computes with
them what the trainer's did. The rows are nobody's: each feature's values are shuffled on their own.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

PARITY = "driftlog.parity"
"""Metadata: JSON of rows, features and, in base64 of little-endian float32, encoded rows and scores."""
MAX_ROWS = 16
MAX_VALUES = 4_096
"""A wide model brings fewer rows, not a larger file."""
TOLERANCE = 1e-5
"""Two processors may round differently; a score that is further apart is another model's."""

Score = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def picked(
    columns: Mapping[str, NDArray[Any]], rows: int, seed: int = 0
) -> dict[str, NDArray[Any]]:
    """Up to MAX_ROWS values of each feature, shuffled independently of the other features'."""
    count = min(rows, MAX_ROWS, max(2, MAX_VALUES // max(1, len(columns))))
    random = np.random.default_rng(seed)
    return {
        name: values[random.choice(rows, count, replace=False)] for name, values in columns.items()
    }


def sample(matrix: NDArray[np.float32], scores: NDArray[np.float64]) -> str:
    """The metadata of encoded rows (n, features) and their scores (n,)."""
    return json.dumps(
        {
            "rows": matrix.shape[0],
            "features": matrix.shape[1],
            "matrix": _packed(matrix),
            "scores": _packed(scores),
        }
    )


def largest_difference(text: str, score: Score) -> float:
    """Between the sample's scores and those that `score` gives; raises ValueError for what is no sample."""
    try:
        told = json.loads(text)
        matrix = _unpacked(told["matrix"]).reshape(told["rows"], told["features"])
        scores = _unpacked(told["scores"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"no parity sample: {error!r}") from error
    again = score(matrix)
    if again.shape != scores.shape:
        raise ValueError(f"{len(again)} scores of a parity sample of {len(scores)}")
    return float(np.abs(again - scores).max(initial=0.0))


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype="<f4").tobytes()).decode()


def _unpacked(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text, validate=True), dtype="<f4").astype(np.float32)
