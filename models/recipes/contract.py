"""What every recipe keeps: (task, rows, seed, **parameters) -> ONNX bytes that score as the library does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.dataset import Dataset
from models.encoder import Encoder
from models.recipes.errors import CannotTrain
from models.scorer import Scorer

MAX_DIFFERENCE = 1e-5
"""The file's scores may differ by so much from the library's (single against double precision)."""
PARITY_ROWS = 4096

Library = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Encoded rows (n, features) -> P(1) of each, as the library that trained the model says it."""


def check_parity(
    data: bytes, rows: Dataset, encoder: Encoder, library: Library, most: int = PARITY_ROWS
) -> None:
    """Raises CannotTrain unless the file scores real rows (the first `most`) as the library does."""
    count = min(len(rows), most)
    sample = encoder.encode_columns({n: v[:count] for n, v in rows.columns.items()}, count)
    scores = Scorer.from_bytes(data).score_matrix(sample)
    difference = np.abs(scores - library(sample.astype(np.float64)))
    if not difference.max(initial=0.0) <= MAX_DIFFERENCE:
        raise CannotTrain(
            f"the ONNX file's scores differ from the library's by {difference.max():.2g},"
            f" more than {MAX_DIFFERENCE:g}"
        )
